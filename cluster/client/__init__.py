"""The Python client: `connect` to a running Shoal, `local` to an API server; listers, informers, a blocking twin."""
