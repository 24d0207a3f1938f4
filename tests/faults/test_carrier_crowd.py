"""Many nodes that start at once over a carrier: all list all, and ten that are killed leave."""

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

NODES = 10
PROCESSES = 10 if recording() else 6
#: All of these nodes share one machine, so they may be slow.
SETTINGS = {"heartbeat_interval": 2.0, "down_after": 12.0, "link_grace": 10.0}


@pytest.mark.timeout(240)
@over("nats")
def test_nodes_that_start_at_once_converge_and_see_ten_killed_ones_leave(
    launcher: Launcher, cluster: Callable[..., Cluster], measured: Measured
) -> None:
    nodes = cluster(**SETTINGS)
    nodes.reach()
    everybody = [[f"{p}.{n}" for n in range(NODES)] for p in range(PROCESSES)]
    known = frozenset[str]().union(*everybody)
    began = time.monotonic()
    processes = [launcher.launch(keys, **nodes.settings, at_once=True) for keys in everybody]
    # Process by process, as all of them together may take longer than one wait.
    agreed_at = max(
        eventually(partial(launcher.all_see, [process], known), "all list all")
        for process in processes
    )
    gone = launcher.kill_first(dict(zip(processes, map(frozenset, everybody), strict=True)))
    fault = f"{len(known)} nodes start at once"
    measured(fault=fault, sees="all list all", seconds=[agreed_at - began])
    measured(fault=f"{fault}, kill -9 of {NODES}", sees="they leave", seconds=[gone])
