"""Forks of processes on a carrier: no child holds their connections, harms or outlives them."""

import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.bus_servers import BusServer, NatsServer, RedisServer, running
from tests.support.forkers import CHILDREN, Forkers, Forking
from tests.support.waiting import eventually

pytestmark = pytest.mark.processes


@pytest.fixture(params=[("asyncio", NatsServer), ("uvloop", RedisServer)])
def pair_of_parts(request: pytest.FixtureRequest) -> tuple[str, type[BusServer]]:
    """An event loop and a server: each of them once, since neither depends on the other."""
    parts: tuple[str, type[BusServer]] = request.param
    return parts


@pytest.fixture
def server(pair_of_parts: tuple[str, type[BusServer]], tmp_path: Path) -> Iterator[BusServer]:
    server = pair_of_parts[1](tmp_path)
    with running(server):
        yield server


@pytest.fixture
def forkers(
    pair_of_parts: tuple[str, type[BusServer]], server: BusServer, cluster_name: str
) -> Iterator[Forkers]:
    settings: dict[str, Any] = {"cluster": cluster_name, "carrier": server.url}
    settings |= {"siblings": False, "secret": "a secret of 16 bytes or more"}
    settings |= {"down_after": 600.0, "forget_after": 600.0}  # longer than the tests
    forkers = Forkers(pair_of_parts[0], settings)
    yield forkers
    forkers.end()


def pair(forkers: Forkers) -> tuple[Forking, Forking]:
    """Start a parent of children, and another process that is linked to it."""
    parent, other = forkers.start("parent"), forkers.start("other")
    forkers.agree("parent", "other")
    return parent, other


def test_kill_of_parent_is_detected_while_child_lives(forkers: Forkers) -> None:
    parent, other = pair(forkers)
    forkers.orphans.append(parent.ask("fork", "idle"))
    parent.signal(signal.SIGKILL)
    eventually(partial(other.lists, "other"), "the leave is seen")


def test_child_inherits_no_connection_to_the_server(forkers: Forkers) -> None:
    parent, _ = pair(forkers)
    assert parent.sockets()
    assert not parent.sockets() & set(parent.ask("in child", "look")["descriptors"])


@pytest.mark.parametrize("child", CHILDREN)
def test_parent_keeps_its_connection_after_child_has_ended(forkers: Forkers, child: str) -> None:
    parent, other = pair(forkers)
    parent.ask("read")
    life, sockets = parent.ask("life"), parent.sockets()
    parent.ask(*CHILDREN[child])
    assert parent.ask("life") == life
    assert parent.sockets() == sockets, "no connection was lost and made again"
    eventually(partial(other.lists, "parent", "other"), "the child is gone")
    parent.ask("track", "user 1")
    other.ask("track", "user 2")
    forkers.agree("parent", "other", "user 1", "user 2")
    third = forkers.start("third")
    eventually(partial(third.linked_to, parent.name, other.name), "the third is linked")


def test_restart_of_the_server_is_survived_while_child_lives(
    forkers: Forkers, server: BusServer
) -> None:
    parent, other = pair(forkers)
    forkers.orphans.append(parent.ask("fork", "idle"))
    server.restart()
    parent.ask("track", "user 1")
    eventually(partial(other.lists, "parent", "other", "user 1"))
    assert parent.lists("parent", "other", "user 1")
