"""What should happen, decided without doing it. Pure: no I/O, no clock, no randomness; `now` is a parameter."""
