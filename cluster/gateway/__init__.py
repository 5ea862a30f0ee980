"""Shoal answering as a read-only Kubernetes API server."""
