"""Two hundred nodes on one machine: all list all, and who is killed takes only its own away."""

import time
from collections.abc import Callable
from functools import partial

import pytest

from tests.support.measurements import Measured, recording
from tests.support.waiting import eventually

from .carriers import over
from .cluster import Cluster
from .node_launcher import Launcher

pytestmark = pytest.mark.processes

PROCESSES, NODES = 20, 10
#: Over a carrier, where each link costs several times the work.
CARRIED = 5 if recording() else 2
#: Slow, as each heartbeat goes to 199 others and two cores serve all of them.
SETTINGS = {"heartbeat_interval": 10.0, "down_after": 60.0, "link_grace": 10.0}


@pytest.mark.timeout(240)
@over("sockets", "nats")
def test_two_hundred_nodes_converge_and_see_ten_killed_ones_leave(
    launcher: Launcher, cluster: Callable[..., Cluster], measured: Measured
) -> None:
    nodes = cluster(**SETTINGS)
    nodes.reach()
    count = PROCESSES if nodes.carrier is None else CARRIED
    everybody = [[f"{p}.{n}" for n in range(NODES)] for p in range(count)]
    began = time.monotonic()
    processes: list[int] = []
    # One after the other: all at once, some of the 19,900 handshakes would take too long.
    for number, keys in enumerate(everybody, 1):
        processes.append(launcher.launch(keys, **nodes.settings))
        known = frozenset().union(*everybody[:number])
        agreed_at = eventually(partial(launcher.all_see, processes, known), "all list all")
    gone = launcher.kill_first(dict(zip(processes, map(frozenset, everybody), strict=True)))
    fault = f"{count * NODES} nodes"
    measured(
        fault=fault, sees="all list all after the start of the first", seconds=[agreed_at - began]
    )
    measured(fault=f"{fault}, kill -9 of {NODES}", sees="they leave", seconds=[gone])
