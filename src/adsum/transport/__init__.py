"""Bytes between nodes: the contract, sockets, the phases of a connection, handshake, discovery."""
