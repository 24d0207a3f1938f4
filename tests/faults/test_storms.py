"""A process that is killed and started again, and again: afterwards nothing of it is left."""

import time
from collections.abc import Callable
from functools import partial

import pytest

from tests.support.measurements import Measured, recording
from tests.support.waiting import eventually
from tests.support.worker_processes import Worker, sibling_sockets

from .carriers import over
from .cluster import Cluster, leaves, when_joined
from .node_launcher import Launcher
from .procfs import descriptors, megabytes

pytestmark = pytest.mark.processes

#: Lives, and how many it takes until a process has all the memory that the first ones need.
LIVES, WARM = 300, 30
#: The same over a carrier; the record has as many as over sockets.
CARRIED = (LIVES, WARM) if recording() else (8, 2)
#: Fast, so that a life is known to be over soon, and is forgotten within the test.
SETTINGS = {
    "heartbeat_interval": 0.2,
    "down_after": 3.0,
    "link_grace": 0.2,
    "forget_after": 4.0,
}


@over("sockets", "redis")
def test_restart_storm_of_300_incarnations_leaks_nothing(
    cluster: Callable[..., Cluster], launcher: Launcher, measured: Measured
) -> None:
    nodes = cluster(**SETTINGS)
    witnesses = nodes.start("ann", "bob")
    nodes.linked()
    before = [bookkeeping(witness) for witness in witnesses]
    times: list[float] = []
    memory: list[float] = []
    lives, warm = (LIVES, WARM) if nodes.carrier is None else CARRIED
    for life in range(lives):
        memory += [] if life != warm else map(megabytes, witnesses)
        began = time.monotonic()
        pid = launcher.launch([f"life {life}"], name="storm", **nodes.settings)
        times += when_joined(witnesses, f"life {life}", began)
        launcher.kill(pid)
    nodes.agree()
    everyone = {f"life {life}": 1 for life in range(lives)}
    for witness in witnesses:
        eventually(partial(has_seen, witness, everyone), "each life has left once")
    for witness, was in zip(witnesses, before, strict=True):
        eventually(partial(same_books, witness, was), "the books are as before")
    if nodes.carrier is None:
        assert sockets(nodes) <= len(witnesses) + 1
        nodes.start("cid")  # Who starts takes away what dead processes left.
        assert sockets(nodes) == len(witnesses) + 1
    grown = [megabytes(witness) - was for witness, was in zip(witnesses, memory, strict=True)]
    assert max(grown) < 4.0
    fault = f"{lives} lives of one name"
    measured(fault=fault, sees="a life is listed after its start", seconds=times)
    measured(fault=fault, sees="memory grows", MB=grown)


def has_seen(witness: Worker, expected: dict[str, int]) -> bool:
    """Whether these leaves have reached its watch, and no others."""
    return leaves(witness) == expected


def bookkeeping(witness: Worker) -> list[object]:
    """All that a process keeps of others, counted; traffic left out."""
    stats = witness.ask("stats")
    counts = {name: stats[name] for name in stats if not name.endswith("_total")}
    return [witness.ask("members"), counts, descriptors(witness)]


def same_books(witness: Worker, was: list[object]) -> bool:
    return bookkeeping(witness) == was


def sockets(nodes: Cluster) -> int:
    """How many sockets are in the directory of a cluster."""
    return len(sibling_sockets(nodes.settings["cluster"]))
