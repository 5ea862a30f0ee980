"""Shoal seen from outside: bring-up on Ray, query router, gateway, command line, the embedded API server."""
