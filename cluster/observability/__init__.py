"""What a client tells of itself: metrics, health, and a small HTTP server for both. Spans are made where calls are."""
