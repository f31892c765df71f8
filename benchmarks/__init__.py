"""How fast and how small the operator is, side by side with a bare client loop in the same run: `make bench`."""
