"""Two hundred nodes on one machine: all list all, and who is killed takes only its own away."""

import time
from functools import partial

import pytest

from tests.support.measurements import Measured
from tests.support.waiting import eventually

from .node_launcher import Launcher

pytestmark = pytest.mark.processes

PROCESSES, NODES = 20, 10
#: Slow, as each heartbeat goes to 199 others and two cores serve all of them.
SETTINGS = {"heartbeat_interval": 10.0, "down_after": 60.0, "link_grace": 10.0}
EVERYBODY = [[f"{p}.{n}" for n in range(NODES)] for p in range(PROCESSES)]


@pytest.mark.timeout(240)
def test_two_hundred_nodes_converge_and_see_ten_killed_ones_leave(
    launcher: Launcher, unique_name: str, measured: Measured
) -> None:
    began = time.monotonic()
    processes: list[int] = []
    # One after the other: all at once, some of the 19,900 handshakes would take too long.
    for number, keys in enumerate(EVERYBODY, 1):
        processes.append(launcher.launch(keys, cluster=unique_name, **SETTINGS))
        known = frozenset().union(*EVERYBODY[:number])
        agreed_at = eventually(partial(launcher.all_see, processes, known), "all list all")
    assert launcher.left() == set()
    victim, *others = processes
    killed = launcher.kill(victim)
    gone_at = eventually(
        partial(launcher.all_see, others, known.difference(EVERYBODY[0])), "ten leave"
    )
    assert launcher.left() == set(EVERYBODY[0])
    fault = f"{PROCESSES * NODES} nodes"
    measured(
        fault=fault, sees="all list all after the start of the first", seconds=[agreed_at - began]
    )
    measured(fault=f"{fault}, kill -9 of {NODES}", sees="they leave", seconds=[gone_at - killed])
