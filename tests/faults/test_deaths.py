"""Processes that die: killed, told to stop, out of memory. Their presences leave, and no others."""

import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.measurements import Measured
from tests.support.waiting import DEADLINE, eventually
from tests.support.worker_processes import Worker, sibling_sockets

from .carriers import over
from .cluster import Cluster, flickers, when_left
from .memory_group import MemoryGroup, memory_group

pytestmark = pytest.mark.processes


@over("sockets", "nats")
def test_kill_makes_only_the_presences_of_that_process_leave(
    cluster: Callable[..., Cluster], measured: Measured
) -> None:
    nodes = cluster()
    witnesses = nodes.start("ann", "bob")
    times = []
    for key in (f"killed {number}" for number in range(nodes.rounds(5))):
        [victim] = nodes.start(key)
        nodes.linked()
        killed = victim.signal(signal.SIGKILL)
        nodes.gone(victim)
        times += when_left(witnesses, key, killed)
        nodes.agree()
        assert flickers(*witnesses, but=nodes.departed) == []
    assert max(times) < nodes.silence
    measured(fault="kill -9", sees="its presences leave", seconds=times)


@over("sockets", "redis")
def test_sigterm_says_goodbye_at_once_and_leaks_nothing(
    cluster: Callable[..., Cluster], measured: Measured, tmp_path: Path
) -> None:
    # Without a goodbye these settings would hide the end of the process for minutes.
    nodes = cluster(down_after=600.0, link_grace=600.0)
    witnesses = nodes.start("ann", "bob")
    times = []
    for number in range(nodes.rounds(3)):
        log = tmp_path / f"log {number}"
        [victim] = nodes.start(f"told {number}", log=log)
        nodes.linked()
        told = victim.signal(signal.SIGTERM)
        nodes.gone(victim)
        times += when_left(witnesses, f"told {number}", told)
        assert victim.process.wait(DEADLINE) == 0
        assert log.read_text() == ""
        if nodes.carrier is None:
            assert len(sibling_sockets(str(nodes.settings["cluster"]))) == len(witnesses)
    nodes.agree()
    assert flickers(*witnesses, but=nodes.departed) == []
    measured(fault="SIGTERM", sees="its presences leave", seconds=times)


@over("sockets", "nats")
def test_rejoin_elsewhere_during_linger_shows_no_leave(
    cluster: Callable[..., Cluster], measured: Measured
) -> None:
    nodes = cluster(linger=1.5)
    witnesses = nodes.start("ann", "bob")
    [victim] = nodes.start("stays away")
    nodes.track(victim, "moves")
    nodes.agree()
    told = victim.signal(signal.SIGTERM)
    nodes.track(witnesses[0], "moves")
    nodes.gone(victim)
    eventually(partial(left_while_listed, witnesses, "stays away", "moves"), "linger is over")
    nodes.agree()
    times = when_left(witnesses, "stays away", told)
    assert flickers(*witnesses, but=["stays away", "moves"]) == []
    assert min(times) > 1.4
    assert max(times) < nodes.silence
    measured(
        fault="SIGTERM, linger 1.5 s", sees="presences not tracked elsewhere leave", seconds=times
    )


@over("sockets", "redis")
def test_out_of_memory_kill_is_detected_as_crash(
    memory: MemoryGroup, cluster: Callable[..., Cluster], measured: Measured
) -> None:
    nodes = cluster()
    witnesses = nodes.start("ann", "bob")
    [victim] = nodes.start("hungry", prefix=memory.prefix)
    nodes.linked()
    victim.tell("allocate", 4 * memory.limit)
    assert victim.process.wait() == -signal.SIGKILL
    died = time.monotonic()
    assert memory.kills() == 1
    nodes.gone(victim)
    times = when_left(witnesses, "hungry", died)
    nodes.agree()
    assert flickers(*witnesses, but=nodes.departed) == []
    assert max(times) < nodes.silence
    measured(fault="out of memory", sees="its presences leave", seconds=times)


def left_while_listed(witnesses: list[Worker], leaver: str, stayer: str) -> bool:
    """Whether all have seen one leave; the other has to be listed all the time."""
    assert all(stayer in witness.ask("list", "room") for witness in witnesses)
    return all(witness.left(leaver) for witness in witnesses)


@pytest.fixture
def memory(unique_name: str) -> Iterator[MemoryGroup]:
    with memory_group(unique_name, 64 * 2**20) as group:
        yield group
