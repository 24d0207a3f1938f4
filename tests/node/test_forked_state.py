"""The copies of a node's state in a forked child: inert, and dropped when a node starts there."""

import asyncio
import contextlib
import gc
import os
import resource
import socket
import warnings
from typing import Any, cast

import pytest

import adsum
from adsum import forks
from adsum.driver.observer import Observer
from adsum.replication.entry import Transition
from adsum.replication.messages import Publish
from adsum.testing import Cluster
from tests.support.forked_child import collect, descriptors, fork, in_child
from tests.support.nodes import run
from tests.support.waiting import until


def test_nodes_made_before_a_fork_start_in_each_child_and_form_a_cluster(cluster_name: str) -> None:
    node = adsum.Node(cluster=cluster_name)

    async def meet() -> Any:
        async with node:
            await until(lambda: len(node.members()) == 2)
            # The other one sees this one, too, before it goes.
            await until(lambda: any(member.linked for member in node.members()))
            await asyncio.sleep(0.2)
            return node.name

    names = [collect(child) for child in [fork(lambda: asyncio.run(meet())) for _ in range(2)]]
    assert len(set(names)) == 2
    assert not node.running


def test_same_owner_and_topic_are_free_in_child_that_starts_the_node() -> None:
    node = adsum.Node(siblings=False)
    presence, pubsub = adsum.Presence(node), adsum.PubSub(node)

    async def again() -> Any:
        async with node:
            watch, subscription = presence.watch("room"), pubsub.subscribe("room")
            assert not (await anext(watch)).joins
            presence.track("room", "ann", owner=None)
            await pubsub.publish("room", {})
            await anext(subscription)
            assert (await anext(presence.watch_topics())).arrived == ("ann",)
            assert len((await anext(node.watch_members())).joined) == 1
            return list((await anext(watch)).joins)

    async def main() -> None:
        async with node:
            presence.track("room", "ann", owner=None)
            inherited: list[Any] = [presence.watch("room"), pubsub.subscribe("room")]
            inherited += [presence.watch_topics(), node.watch_members()]
            assert in_child(lambda: asyncio.run(again())) == ["ann"]
            assert in_child(lambda: all(reader.closed for reader in inherited))
            assert not any(reader.closed for reader in inherited)

    run(main())


def test_watch_collected_in_child_does_not_wake_the_loop_of_parent() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        presence = adsum.Presence(node)
        async with node:
            watches = [presence.watch("room")]
            loop: Any = asyncio.get_running_loop()

            def collect_garbage() -> int:
                calls: list[Any] = []
                loop.call_soon_threadsafe = lambda *call: calls.append(call)
                watches.clear()
                gc.collect()
                return len(calls)

            assert in_child(collect_garbage) == 0
            assert collect_garbage() == 1

    run(main())


def test_node_of_a_testing_cluster_does_not_run_in_child() -> None:
    with Cluster(2) as cluster:
        node = cluster[0].node
        assert in_child(lambda: node.running) is False
        assert node.running


def test_connection_is_private_from_the_turn_on_in_which_it_is_accepted(cluster_name: str) -> None:
    def sockets() -> list[str]:
        return [name for name in descriptors().values() if name.startswith("socket:")]

    async def main() -> None:
        async with adsum.Node(cluster=cluster_name) as node:
            assert node.address is not None
            await asyncio.sleep(0.01)  # until it waits for connections
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(node.address.removeprefix("unix:"))
                before = set(sockets())
                for _ in range(10):
                    assert set(in_child(sockets)) <= before
                    await asyncio.sleep(0)
                assert set(sockets()) - before, "it was accepted meanwhile"

    run(main())


class Recorder(Observer):
    """An observer that keeps what it is called for."""

    def __init__(self, node: adsum.Node) -> None:
        self.calls: list[str] = []
        node.observe(self)

    def changed(self, topic: str, transitions: list[Transition]) -> None:
        self.calls.append("changed")

    def delivered(self, sender: str, message: Publish) -> None:
        self.calls.append("delivered")

    def closed(self) -> None:
        self.calls.append("closed")

    def forked(self) -> None:
        self.calls.append("forked")


def test_timer_of_an_inherited_loop_does_nothing_in_child() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        recorder, presence = Recorder(node), adsum.Presence(node)
        async with node:
            run, loop = node.driver, cast(Any, asyncio.get_running_loop())
            presence.watch("room")
            presence.track("room", "ann", owner=None)

            def tick() -> list[str]:
                loop.call_at = lambda *call: recorder.calls.append("timer")
                run.tick()
                return recorder.calls

            assert in_child(tick) == []
            assert "changed" in tick()

    run(main())


def test_close_of_an_inherited_run_ends_nothing_in_child() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        recorder = Recorder(node)
        async with node:
            inherited = node.driver

            def close() -> list[str]:
                asyncio.run(inherited.close())
                return recorder.calls

            assert in_child(close) == []
        assert recorder.calls == ["closed"]

    run(main())


def test_observers_are_notified_of_the_fork_at_first_start_in_child() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        recorder = Recorder(node)

        async def start_twice() -> list[str]:
            for _ in range(2):
                async with node:
                    pass
            return recorder.calls

        async with node:
            started = in_child(lambda: asyncio.run(start_twice()))
        assert started == ["forked", "closed", "closed"]
        assert recorder.calls == ["closed"]

    run(main())


def a_pair() -> tuple[socket.socket, socket.socket]:
    first, second = socket.socketpair()
    return forks.private(first), forks.private(second)


def test_descriptors_of_private_sockets_refer_to_dev_null_in_child() -> None:
    first, second = a_pair()
    numbers = [first.fileno(), second.fileno()]

    def look() -> Any:
        found = descriptors()
        inheritable = [os.get_inheritable(number) for number in numbers]
        return [found[number] for number in numbers], inheritable, first.fileno(), len(found)

    files, inheritable, detached, count = in_child(look)
    assert files == [os.devnull] * 2
    assert inheritable == [False] * 2
    assert detached == -1
    assert count == len(descriptors()) + 1, "the child's end of the pipe, and nothing else"
    first.send(b"x")
    assert second.recv(1) == b"x"
    first.close()
    second.close()


def test_closed_sockets_are_left_alone_in_child() -> None:
    first, second = a_pair()
    first.close()
    second.detach()
    reused = os.open(os.devnull, os.O_RDONLY)
    assert in_child(lambda: descriptors()[reused]) == os.devnull
    os.close(reused)


def test_private_sockets_are_released_where_no_descriptor_is_left() -> None:
    def crowded() -> Any:
        first, second = a_pair()
        number = second.fileno()
        pipe = os.pipe()
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(descriptors()) + 1, hard))
        with contextlib.suppress(OSError):
            while True:
                os.dup(0)
        if os.fork() == 0:
            os.write(pipe[1], os.readlink(f"/proc/self/fd/{number}").encode())
            os._exit(0)
        del first
        return os.read(pipe[0], 100).decode()

    assert in_child(crowded) == os.devnull


def test_private_sockets_are_closed_where_dev_null_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = a_pair()
    numbers = {first.fileno(), second.fileno()}
    monkeypatch.setattr(os, "devnull", "/nowhere/null")
    assert not numbers & set(in_child(lambda: sorted(descriptors())))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first.close()
        second.close()
