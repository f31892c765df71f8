"""A Kubernetes operator that keeps Squidex access tokens in Secrets."""

__version__ = "0.1.0"
