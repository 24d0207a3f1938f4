"""Test tools: clusters over a simulated network, in virtual time, from a seed.

`Cluster` is for tests of applications, and the pytest fixture ``cluster`` makes one. `Simulation`
is the network and the engines below it, and `Trial` puts those to the test.
"""

from .cluster import Cluster, Member
from .laws import BrokenLawError
from .simulation import Simulation
from .trial import Trial

__all__ = ["BrokenLawError", "Cluster", "Member", "Simulation", "Trial"]
