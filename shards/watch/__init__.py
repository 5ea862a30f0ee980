"""Following the API server: the reflector machine, its driver, backoff, permits. The store is a Protocol."""
