"""Shoal: a multiprocess, sharded informer cluster for Kubernetes, running on Ray."""

__version__ = "0.1.0"
