"""Bytes between nodes: the contract, sockets, in-memory network, handshake, discovery."""
