"""Watches: shards' feeds become Kubernetes watches, encoded once and written to every watcher."""
