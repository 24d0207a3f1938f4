"""The replication core: state, liveness, messages and engine, without any I/O.

Nothing here imports a clock, a socket or a source of randomness; `tests/test_layers.py` proves it.
Read in this order: `state`, `view`, `liveness`, `messages`, `streams`, `engine`.
"""
