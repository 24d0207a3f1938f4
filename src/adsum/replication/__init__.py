"""The replication core: state, liveness, messages and engine, without any I/O.

Nothing here imports a clock, a socket or a source of randomness; `tests/test_layers.py` proves it.
Read in this order: `state`, `view`, `messages`; slice transfer: `streams`, `exchange`; liveness and
goodbyes of replicas: `liveness`, `departures`, `digests`; the progress of joining: `joining`.
`parts` lists every part from the bottom up, `reconciler` keeps them in agreement, and `engine` is
the interface.
"""
