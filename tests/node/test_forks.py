"""Real forks of processes with running nodes: no child harms its parent or hides its death."""

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.forkers import CHILDREN, Forkers
from tests.support.ports import free_port
from tests.support.waiting import assert_within, eventually

pytestmark = pytest.mark.processes

TRANSPORTS = ["unix", "tcp", "tls"]
#: Ways to make a child that stays: `os.fork` in the thread of the event loop and in another one,
#: `multiprocessing.Process`, `ProcessPoolExecutor`.
WAYS = ["fork", "fork in thread", "fork by multiprocessing", "fork by pool"]


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def transport() -> str:
    """The transport of the cluster; tests choose others by a parameter of this name."""
    return "unix"


@pytest.fixture
def forkers(
    loop: str, transport: str, cluster_name: str, request: pytest.FixtureRequest
) -> Iterator[Forkers]:
    settings: dict[str, Any] = {"cluster": cluster_name}
    if transport != "unix":
        port = free_port()
        first = f"127.0.0.1:{port}"
        settings.update(siblings=False, listen=f"{first}-{port + 7}", peers=first)
    if transport == "tls":
        files = request.getfixturevalue("certificates")
        settings["tls"] = [str(files / name) for name in ("node.pem", "node.key", "authority.pem")]
    forkers = Forkers(loop, settings)
    yield forkers
    forkers.end()


@pytest.mark.parametrize(
    ("way", "transport"), [*[(way, "unix") for way in WAYS], ("fork", "tcp"), ("fork", "tls")]
)
def test_kill_of_parent_is_detected_within_a_second_while_child_lives(
    forkers: Forkers, way: str
) -> None:
    def attempt() -> float:
        forkers.end()
        parent, other = forkers.pair()
        forkers.orphans.append(parent.ask(way, "idle"))
        killed = parent.signal(signal.SIGKILL)
        eventually(partial(other.lists, "other"), "the leave is seen")
        return time.monotonic() - killed

    assert_within(1.0, attempt)


@pytest.mark.parametrize("transport", ["tcp"])
def test_restart_on_fixed_port_succeeds_while_child_of_old_incarnation_lives(
    forkers: Forkers,
) -> None:
    parent, other = forkers.pair()
    _, (address,) = parent.ask("life")
    forkers.orphans.append(parent.ask("fork", "idle"))
    parent.signal(signal.SIGKILL)
    parent.process.wait()
    restarted = forkers.start("restarted", listen=address)
    assert restarted.ask("life")[1] == [address]
    eventually(partial(other.lists, "other", "restarted"), "the restart is seen")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_child_inherits_no_socket_of_the_node(forkers: Forkers) -> None:
    parent, _ = forkers.pair()
    assert not parent.sockets() & set(parent.ask("in child", "look")["descriptors"])


def test_program_executed_by_child_inherits_nothing_of_the_node(forkers: Forkers) -> None:
    parent, _ = forkers.pair()
    before = {name for name in parent.descriptors_before if name.startswith(("socket:", "anon"))}
    inherited = parent.ask("in child", "execute")
    assert not parent.sockets() & set(inherited)
    assert not before & set(inherited)
    assert inherited.count(os.devnull) <= 2


def test_use_of_node_in_child_raises_and_mentions_the_fork(forkers: Forkers) -> None:
    parent, _ = forkers.pair()
    parent.ask("read")
    seen = parent.ask("in child", "look")
    assert not seen["running"]
    assert seen["active"] == [False]
    for kind, text in [*seen["uses"], *seen["uses after stop"]]:
        assert (kind, "was forked" in text) == ("NodeNotRunningError", True), text
    assert seen["untracks"] == [["no error", ""]]
    assert seen["reads"] == ["StopAsyncIteration", "StopAsyncIteration"]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("child", CHILDREN)
def test_parent_keeps_links_and_accepts_after_child_has_ended(forkers: Forkers, child: str) -> None:
    parent, other = forkers.pair()
    parent.ask("read")
    life, sockets = parent.ask("life"), parent.sockets()
    parent.ask(*CHILDREN[child])
    assert parent.ask("life") == life
    assert parent.sockets() == sockets, "no link was lost and made again"
    for address in life[1]:
        assert address[:5] != "unix:" or Path(address[5:]).is_socket()
    eventually(partial(other.lists, "parent", "other"), "the child is gone")
    parent.ask("track", "user 1")
    other.ask("track", "user 2")
    forkers.agree("parent", "other", "user 1", "user 2")
    third = forkers.start("third")
    eventually(partial(third.linked_to, parent.name, other.name), "the third is linked")
    forkers.agree("parent", "other", "user 1", "user 2", "third")


@pytest.mark.parametrize("way", ["in child", "in pool"])
def test_start_in_child_is_a_fresh_incarnation(forkers: Forkers, way: str) -> None:
    parent, other = forkers.pair()
    parent.ask("read")
    seen = parent.ask(way, "live", "child", 2)
    assert seen["seen"] == ["child", "other", "parent"]
    assert seen["name"] not in (parent.name, other.name)
    assert seen["incarnation"] > parent.ask("life")[0]
    assert seen["active"] == [False, True]
    assert seen["sender"] == seen["name"]


def test_grandchild_inherits_nothing_of_the_node_of_its_parent(forkers: Forkers) -> None:
    parent, _ = forkers.pair()
    before = set(parent.ask("descriptors"))
    name, descriptors, seen = parent.ask("in child", "bear", 3)
    assert name != parent.name
    own = {name for name in set(descriptors) - before if name.startswith("socket:")}
    assert own
    assert not seen["running"]
    assert len(own & set(seen["descriptors"])) <= 2, "the loop's own pair of sockets"
