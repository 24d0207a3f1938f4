"""Bounds and turns: queues of one client or channel, rate limits, and the share of each client."""
