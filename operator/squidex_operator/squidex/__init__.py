"""What Squidex says: tokens, probes, signing keys, and what each of its answers means."""
