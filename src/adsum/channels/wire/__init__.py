"""The protocol of Phoenix clients: frames, topics and the connecting request. Pure."""
