"""Test tools: clusters over a simulated network, in virtual time, from a seed.

`Cluster` is for tests of applications, and the pytest fixture ``cluster`` makes one. `Simulation`
is the network and the engines below it, and `Trial` runs those under random faults. `Browser` is a
client of an application's channels.
"""

from .browser import Browser, JoinedChannel, RefusedByServerError
from .cluster import Cluster, ClusterMember, MakeCluster
from .simulator.laws import BrokenLawError
from .simulator.simulation import Simulation
from .simulator.trial import Trial

__all__ = [
    "BrokenLawError",
    "Browser",
    "Cluster",
    "ClusterMember",
    "JoinedChannel",
    "MakeCluster",
    "RefusedByServerError",
    "Simulation",
    "Trial",
]
