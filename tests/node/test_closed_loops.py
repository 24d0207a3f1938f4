"""An event loop that is closed without `stop`: nothing of that run is left in the next one."""

import asyncio
import gc
import threading
from pathlib import Path
from typing import Any

import pytest

import adsum
from tests.support.closed_loops import closed_loop_warnings, collect_closed_loops, run_and_close
from tests.support.eager_tasks import fetch_names
from tests.support.nodes import run
from tests.support.ports import free_port
from tests.support.waiting import until

__all__ = ["collect_closed_loops"]

pytestmark = closed_loop_warnings


class Run:
    """A node with a watch and a subscription, each with a reader that waits or without one."""

    def __init__(self, *, fetch: Any = None, readers: str = "waiting") -> None:
        self.node = adsum.Node(siblings=False)
        self.presence = adsum.Presence(self.node, fetch=fetch)
        self.pubsub = adsum.PubSub(self.node)
        self.readers = readers
        self.kept = list[Any]()

    async def begin(self) -> None:
        await self.node.start()
        watch, subscription = self.presence.watch("room"), self.pubsub.subscribe("room")
        await anext(watch)
        self.presence.track("room", "old", owner=None)
        assert list((await anext(watch)).joins) == ["old"]
        if self.readers != "dropped":
            self.kept += [watch, subscription]
        if self.readers == "waiting":
            self.kept += [asyncio.create_task(one.__anext__()) for one in (watch, subscription)]
            await asyncio.sleep(0)

    async def begin_again(self) -> None:
        async with self.node:
            assert self.presence.topics() == []
            watch, subscription = self.presence.watch("room"), self.pubsub.subscribe("room")
            assert await anext(watch) == adsum.Diff()
            self.presence.track("room", "new", owner=None)
            assert list((await anext(watch)).joins) == ["new"]
            await self.pubsub.publish("room", {})
            assert (await anext(subscription)).topic == "room"
            assert len(self.presence._feeds._by_topic["room"].watches) == 1
            assert self.pubsub._topics is not None
            assert list(self.pubsub._topics.of("room")) == [subscription]
        assert all(reader.closed for reader in self.kept[:2])


@pytest.mark.parametrize("fetch", [None, fetch_names], ids=["plain", "fetch"])
@pytest.mark.parametrize("readers", ["waiting", "dropped", "dropped later"])
@pytest.mark.parametrize("end", [asyncio.run, run_and_close])
def test_watch_in_the_next_run_receives_every_change(
    end: Any, readers: str, fetch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    world = Run(fetch=fetch, readers=readers)
    end(world.begin())
    if readers == "dropped later":
        world.kept.clear()
    run(world.begin_again())
    assert "failed" not in caplog.text


def test_stop_in_another_loop_ends_the_run() -> None:
    world = Run()
    run_and_close(world.begin())
    run(world.node.stop())
    assert not world.node.running
    run(world.begin_again())


def test_address_is_free_for_the_next_run() -> None:
    port = free_port()
    node = adsum.Node(siblings=False, listen=f"127.0.0.1:{port}")
    run_and_close(node.start())

    async def again() -> None:
        async with node:
            assert node.address == f"127.0.0.1:{port}"

    run(again())


@pytest.mark.parametrize("loops", ["asyncio", "uvloop"])
def test_closed_loop_is_detected_by_peers_as_a_crash(loops: str) -> None:
    make = pytest.importorskip(loops).new_event_loop
    tcp: dict[str, Any] = {"siblings": False, "listen": "127.0.0.1:0", "cluster": "closed-loops"}
    stays, address, seen, done = adsum.Node(**tcp), list[str](), threading.Event(), list[float]()

    async def watch() -> None:
        async with stays:
            presence = adsum.Presence(stays)
            address.append(stays.address or "")
            await until(lambda: presence.count("room") == 1)
            seen.set()
            began = asyncio.get_running_loop().time()
            await until(lambda: presence.count("room") == 0)
            done.append(asyncio.get_running_loop().time() - began)

    async def visit() -> None:
        await node.start()
        adsum.Presence(node).track("room", "ann", owner=None)
        await until(seen.is_set)

    thread = threading.Thread(target=run, args=[watch()])
    thread.start()
    while not address:
        assert thread.is_alive()
    node = adsum.Node(**tcp, peers=address)
    run_and_close(visit(), make)
    run(node.stop())
    thread.join()
    assert done[0] < stays.settings.timing.down_after / 2


def test_long_task_leaks_no_callbacks_over_many_runs() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        presence = adsum.Presence(node)
        task: Any = asyncio.current_task()
        for _ in range(3):
            async with node:
                presence.track("room", "ann")
        gc.collect()
        assert presence._endings.task_ended not in [
            callback for callback, _ in task._callbacks or ()
        ]

    asyncio.run(main())


@pytest.mark.parametrize("end", [asyncio.run, run_and_close])
def test_interrupted_stop_frees_the_address(end: Any, cluster_name: str, short_path: Path) -> None:
    port = free_port()
    settings: dict[str, Any] = {"cluster": cluster_name, "runtime_dir": str(short_path)}
    node = adsum.Node(listen=f"127.0.0.1:{port}", **settings)

    async def interrupt_stop() -> None:
        await node.start()
        kept.append(node.driver)
        kept.append(asyncio.create_task(node.stop()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def again() -> None:
        async with node:
            assert node.address == f"127.0.0.1:{port}"
            assert len(sockets()) == 1

    def sockets() -> list[Path]:
        return list(short_path.glob("adsum/*/*.sock"))

    kept: list[Any] = []
    end(interrupt_stop())
    run(again())


def test_handle_of_a_closed_loop_has_ended() -> None:
    node = adsum.Node(siblings=False)
    presence = adsum.Presence(node)

    handles = list[adsum.Tracked]()

    async def begin() -> None:
        await node.start()
        handles.append(presence.track("room", "ann", owner=None))

    run_and_close(begin())
    (handle,) = handles
    assert not handle.active
    handle.untrack()
    with pytest.raises(adsum.NotTrackedError):
        handle.update({})
    with pytest.raises(RuntimeError, match="of the block"), handle:
        raise RuntimeError("of the block")
