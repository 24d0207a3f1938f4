"""Carriers move the frames of a connection: over a WebSocket, or over long-poll requests."""
