"""The replication core: state, liveness, messages and engine, without any I/O.

Nothing here imports a clock, a socket or a source of randomness; `tests/test_layers.py` proves it.
Read in this order: `state`, `view`, `messages`; how slices travel: `streams`, `exchange`; which
replicas are alive or said goodbye: `liveness`, `departures`, `digests`; when a node has joined:
`joining`; and `peers` and `engine`, which keep all of them in agreement.
"""
