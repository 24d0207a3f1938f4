"""Test tools: a cluster of real engines over a simulated network, in virtual time, from a seed."""

from .simulation import Simulation

__all__ = ["Simulation"]
