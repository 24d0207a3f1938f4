"""Links over a message engine that users operate already: a carrier, instead of sockets.

Nodes that cannot dial each other publish and subscribe on one engine, NATS or Redis. `BusCore`
makes virtual links over it, without any I/O; `BusTransport` runs it in an event loop, over one of
the clients.
"""
