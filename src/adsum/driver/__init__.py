"""The drivers: they run the engine of a node, and are the only way from the node to its engine.

A `Driver` passes local changes, received frames, link events and the time to the engine, and
carries out the effects that the engine returns. `SocketDriver` does so with sockets in an event
loop; `adsum.testing` has one on a simulated network.
"""
