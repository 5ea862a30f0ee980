"""Who holds what: discovery, catalogue, placement, permits, routes. Knows nothing of HTTP serving or of bytes."""
