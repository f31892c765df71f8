"""What Kubernetes says: the one gateway to the API server."""
