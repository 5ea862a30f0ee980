"""The direct connections on which gateways ask shards: frames, a machine for each side, and the driver of both."""
