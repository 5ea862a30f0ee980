"""The only user of HTTP on the client side: where the API server is, who we are, requests and their bytes."""
