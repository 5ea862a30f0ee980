"""A complete informer library: vocabulary, API server connection, list-watch machine, store, one shard.

Knows nothing of Ray clusters, placement or HTTP serving.
"""
