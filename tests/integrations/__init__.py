"""Integrations with HTTP clients: real clients, real servers."""
