"""Watching: each change exactly once, merged for the slow, enriched in batches and in order."""

import asyncio
import contextlib
import gc
import logging
from random import Random
from typing import Any

import pytest

import adsum
from adsum import tasks
from adsum import watch as watch_module
from adsum.driver.observer import Observer
from adsum.replication import view
from adsum.replication.entry import META
from adsum.testing import MakeCluster
from tests.support.nodes import run
from tests.support.waiting import DEADLINE, until

from .test_presence import alone


def fold(seen: dict[str, str], diff: adsum.Diff) -> None:
    """Apply a diff to what a reader has, by ref; anything that does not fit is an error."""
    for entry in diff.leaves.values():
        for meta in entry["metas"]:
            del seen[meta["phx_ref"]]
    for key, entry in diff.updates.items():
        for meta in entry["metas"]:
            assert seen.pop(meta["phx_ref_prev"]) == key
            seen[meta["phx_ref"]] = key
    for key, entry in diff.joins.items():
        for meta in entry["metas"]:
            assert meta["phx_ref"] not in seen
            seen[meta["phx_ref"]] = key


def listed(presence: adsum.Presence, topic: str) -> dict[str, str]:
    return {m["phx_ref"]: key for key, e in presence.list(topic).items() for m in e["metas"]}


def test_first_diff_has_all_presences_and_later_ones_the_changes() -> None:
    async def main() -> None:
        node, presence = await alone()
        presence.track("room", "ann")
        watch = presence.watch("room")
        assert list((await anext(watch)).joins) == ["ann"]
        me = presence.track("room", "bob", {"n": 1})
        diff = await anext(watch)
        assert (list(diff.joins), diff.leaves, diff.updates) == (["bob"], {}, {})
        me.update({"n": 2})
        diff = await anext(watch)
        assert (diff.joins, diff.leaves, list(diff.updates)) == ({}, {}, ["bob"])
        assert diff.updates["bob"]["metas"][0]["n"] == 2
        me.untrack()
        diff = await anext(watch)
        assert (diff.joins, list(diff.leaves), diff.updates) == ({}, ["bob"], {})
        assert diff.leaves["bob"]["metas"][0]["n"] == 2
        await node.stop()

    run(main())


def test_first_diff_of_an_empty_topic_is_empty() -> None:
    async def main() -> None:
        node, presence = await alone()
        watch = presence.watch("room")
        assert await anext(watch) == adsum.Diff({}, {}, {})
        presence.track("room", "ann")
        assert list((await anext(watch)).joins) == ["ann"]
        await node.stop()

    run(main())


def test_watch_reports_no_earlier_change_as_duplicate() -> None:
    async def main() -> None:
        node, presence = await alone()
        early = presence.watch("room")
        presence.track("room", "ann")
        late = presence.watch("room")
        presence.track("room", "bob")
        for watch in (early, late):
            seen: dict[str, str] = {}
            while seen != listed(presence, "room"):
                fold(seen, await anext(watch))
        await node.stop()

    run(main())


@pytest.mark.parametrize("seed", range(20))
def test_diffs_of_a_slow_consumer_fold_to_the_list(seed: int) -> None:
    async def main() -> None:
        random = Random(seed)
        node, presence = await alone()
        watch, seen, mine = presence.watch("room"), dict[str, str](), list[adsum.Tracked]()
        for step in range(300):
            act = random.random()
            if act < 0.5 or not mine:
                mine.append(presence.track("room", f"u{random.randrange(8)}", {"n": 0}, owner=step))
            elif act < 0.75:
                random.choice(mine).update({"n": step})
            else:
                mine.pop(random.randrange(len(mine))).untrack()
            if random.random() < 0.1:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                if watch._pending:
                    fold(seen, await anext(watch))
        await asyncio.sleep(0.02)
        if watch._pending:
            fold(seen, await anext(watch))
        assert seen == listed(presence, "room")
        await node.stop()

    run(main())


def test_slow_consumer_of_a_watch_is_memory_bound_by_the_presences() -> None:
    async def main() -> None:
        node, presence = await alone()
        watch = presence.watch("room")
        me = presence.track("room", "ann", {"n": 0})
        for step in range(5000):
            me.update({"n": step})
            presence.track("room", "bob", owner=step).untrack()
            if step % 100 == 0:
                await asyncio.sleep(0)
        last = '{"n":4999}'
        await until(lambda: [new[META] for _, new in watch._pending.values() if new] == [last])
        diff = await anext(watch)
        assert list(diff.joins) == ["ann"]
        assert diff.joins["ann"]["metas"][0]["n"] == 4999
        assert (diff.leaves, diff.updates) == ({}, {})
        await node.stop()

    run(main())


def test_closing_the_watch_or_the_node_ends_the_iteration() -> None:
    async def main() -> None:
        node, presence = await alone()

        diffs: list[adsum.Diff] = []

        async def read(watch: adsum.Watch) -> None:
            async for diff in watch:
                diffs.append(diff)

        one, two = presence.watch("room"), presence.watch("room")
        tasks = [asyncio.create_task(read(watch)) for watch in (one, two)]
        presence.track("room", "ann", owner=None)
        await until(lambda: [d for d in diffs if d.joins] and len(diffs) >= 2)
        await until(lambda: not one._pending and not two._pending)
        one.close()
        one.close()
        await tasks[0]
        await node.stop()
        await tasks[1]
        assert presence._feeds._by_topic == {}

    run(main())


class Table:
    """A table of users behind a function that looks many up at once."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch(self, topic: str, entries: dict[str, Any]) -> dict[str, Any]:
        self.calls.append(sorted(entries))
        await self.gate.wait()
        return {key: {"user": {"name": key.title()}} for key in entries}


async def with_fetch(fetch: Any, limit: float = 5.0) -> tuple[adsum.Node, adsum.Presence]:
    node = adsum.Node(siblings=False)
    presence = adsum.Presence(node, fetch=fetch, fetch_timeout=limit)
    await node.start()
    return node, presence


def test_fetch_is_called_once_for_a_list_and_once_for_a_diff() -> None:
    async def main() -> None:
        table = Table()
        node, presence = await with_fetch(table.fetch)
        for number in range(50):
            presence.track("room", f"u{number:02}")
        entries = await presence.fetch("room")
        assert entries["u07"]["user"] == {"name": "U07"}
        assert len(entries["u07"]["metas"]) == 1
        assert [len(call) for call in table.calls] == [50]
        watches = [presence.watch("room") for _ in range(3)]
        for watch in watches:
            assert (await anext(watch)).joins["u07"]["user"] == {"name": "U07"}
        table.calls.clear()
        presence.track("room", "x1")
        presence.track("room", "x2")
        for watch in watches:
            assert (await anext(watch)).joins["x1"]["user"] == {"name": "X1"}
        assert table.calls == [["x1", "x2"]]
        assert "user" not in presence.list("room")["x1"]
        await node.stop()

    run(main())


def test_slow_fetch_keeps_order_and_delays_no_replication() -> None:
    async def main() -> None:
        table = Table()
        table.gate.clear()
        node, presence = await with_fetch(table.fetch)
        watch, seen = presence.watch("room"), dict[str, str]()
        me = presence.track("room", "ann", {"n": 1})
        await until(lambda: table.calls)
        me.update({"n": 2})
        presence.track("room", "bob").untrack()
        me.untrack()
        assert presence.count("room") == 0
        presence.track("room", "eve")
        await asyncio.sleep(0.01)
        table.gate.set()
        while seen != listed(presence, "room"):
            fold(seen, await anext(watch))
        assert len(table.calls) == 2
        await node.stop()

    run(main())


@pytest.mark.slow
def test_slow_consumer_keeps_fetched_fields_of_pending_presences_only() -> None:
    async def main() -> None:
        node, presence = await with_fetch(Table().fetch)
        watch = presence.watch("room")
        await anext(watch)
        presence.track("room", "ann", owner=1)
        for number in range(300):
            guest = presence.track("room", f"guest {number}")
            presence.track("room", "ann", owner=2).untrack()
            await until(lambda: len(watch._extras) == 2)
            guest.untrack()
            await until(lambda: len(watch._pending) == 1)
            assert len(watch._extras) == 1
        assert (await anext(watch)).joins["ann"]["user"] == {"name": "Ann"}
        assert watch._extras == {}
        await node.stop()

    run(main())


def test_changes_during_fetch_are_folded_for_each_presence() -> None:
    async def main() -> None:
        table = Table()
        node, presence = await with_fetch(table.fetch)
        watch = presence.watch("room")
        await anext(watch)
        table.gate.clear()
        me = presence.track("room", "ann", {"n": 0})
        await until(lambda: table.calls)
        for n in range(5000):
            me.update({"n": n})
            presence.track("room", "guest", owner=n).untrack()
            if n % 100 == 0:
                await asyncio.sleep(0)
        node.driver.notify_observers()
        assert watch._deferred is not None
        assert len(watch._deferred) == 1
        table.gate.set()
        assert (await anext(watch)).joins["ann"]["metas"][0]["n"] == 0
        assert (await anext(watch)).updates["ann"]["metas"][0]["n"] == 4999
        assert table.calls == [["ann"], ["ann"]]
        await node.stop()

    run(main())


def test_watch_closed_during_fetch_leaks_no_changes() -> None:
    async def main() -> None:
        table = Table()
        node, presence = await with_fetch(table.fetch)
        watch, other = presence.watch("room"), presence.watch("room")
        await anext(watch)
        table.gate.clear()
        presence.track("room", "ann")
        await until(lambda: table.calls)
        presence.track("room", "bob")
        node.driver.notify_observers()
        watch.close()
        presence.track("room", "eve")
        node.driver.notify_observers()
        assert (watch._deferred, watch._pending) == (None, {})
        table.gate.set()
        seen: dict[str, str] = {}
        while seen != listed(presence, "room"):
            fold(seen, await anext(other))
        assert (watch._deferred, watch._pending, watch._extras) == (None, {}, {})
        await node.stop()

    run(main())


def test_long_batch_is_presented_in_slices_and_read_as_one_diff(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks, "SLICE", 10)
    sizes = list[int]()

    def present(entries: Any) -> Any:
        sizes.append(len(entries))
        return view.present(entries)

    async def main() -> None:
        table = Table()
        node, presence = await with_fetch(table.fetch)
        watch = presence.watch("room")
        await anext(watch)
        for number in range(95):
            presence.track("room", f"u{number:02}")
        with monkeypatch.context() as patch:
            patch.setattr(watch_module, "present", present)
            for _ in range(100):
                if watch._pending:
                    break
                await asyncio.sleep(0)
            assert watch._pending
            assert not watch._has_more()  # the reader would take a part of the batch
            await until(watch._has_more)
        assert sizes == [10] * 9 + [5]
        assert [len(call) for call in table.calls] == [95]
        diff = await anext(watch)
        assert len(diff.joins) == 95
        assert diff.joins["u94"]["user"] == {"name": "U94"}
        await node.stop()

    run(main())


def test_cancelled_fetch_ends_its_watches() -> None:
    async def main() -> None:
        table = Table()
        node, presence = await with_fetch(table.fetch)
        watch = presence.watch("room")
        await anext(watch)
        table.gate.clear()
        presence.track("room", "ann", owner=None)
        await until(lambda: table.calls)
        looking_up = presence._feeds._by_topic["room"]._task
        assert looking_up is not None
        looking_up.cancel()
        with pytest.raises(StopAsyncIteration):
            await anext(watch)
        table.gate.set()
        again = presence.watch("room")
        assert list((await anext(again)).joins) == ["ann"]
        await node.stop()

    run(main())


def test_slow_consumer_of_flapping_presences_gets_the_net_change(
    cluster: MakeCluster,
) -> None:
    two = cluster(2, forget_after=10.0)
    room, there = two[0].presence, two[1].presence
    there.track("room", "ann", owner=None)
    changes = there.track("room", "bob", {"n": 0}, owner=None)
    two.settle()
    watch = room.watch("room")
    assert sorted(next_of(watch).joins) == ["ann", "bob"]
    for number, seconds in enumerate([8, 8, 30]):  # at last they are forgotten, and sent again
        two.partition([0], [1])
        changes.update({"n": number})
        two.run(seconds)
        assert room.count("room") == 0
        two.heal()
        two.settle()
    diff = next_of(watch)
    assert (diff.joins, diff.leaves, list(diff.updates)) == ({}, {}, ["bob"])
    assert diff.updates["bob"]["metas"][0]["n"] == 2
    two.partition([0], [1])
    two.settle()
    assert sorted(next_of(watch).leaves) == ["ann", "bob"]


def next_of(watch: adsum.Watch) -> adsum.Diff:
    """The diff that is there to be read, in a test without an event loop."""
    assert watch._has_more()
    return watch._take()


async def _fails(topic: str, entries: dict[str, Any]) -> dict[str, Any]:
    raise RuntimeError("the database is away")


async def _hangs(topic: str, entries: dict[str, Any]) -> dict[str, Any]:
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            if entries.get("stubborn"):
                continue
            raise


async def _answers_nonsense(topic: str, entries: dict[str, Any]) -> Any:
    return 5


@pytest.mark.parametrize("fetch", [_fails, _hangs, _answers_nonsense])
def test_failed_or_hanging_fetch_is_logged_and_entries_come_without(
    fetch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        node, presence = await with_fetch(fetch, limit=0.05)
        watch = presence.watch("room")
        assert (await anext(watch)).joins == {}
        presence.track("room", "ann")
        assert list((await anext(watch)).joins) == ["ann"]
        assert list(await presence.fetch("room")) == ["ann"]
        presence.track("room", "bob")
        assert list((await anext(watch)).joins) == ["bob"]
        await node.stop()

    with caplog.at_level(logging.ERROR, logger="adsum"):
        run(main())
    assert "fetch for 'room'" in caplog.text


def test_unreferenced_watch_is_closed() -> None:
    async def main() -> None:
        node, presence = await alone()
        presence.track("room", "ann")
        async for _ in presence.watch("room"):
            break
        gc.collect()
        await until(lambda: presence._feeds._by_topic == {})
        assert node.driver.engine.view._watched == {}
        await node.stop()

    run(main())


def test_two_readers_of_one_watch_are_refused() -> None:
    async def main() -> None:
        node, presence = await alone()
        watch = presence.watch("room")
        await anext(watch)
        first = asyncio.create_task(watch.__anext__())
        await asyncio.sleep(0)
        with pytest.raises(adsum.UsageError, match="two tasks"):
            await anext(watch)
        presence.track("room", "ann")
        assert list((await first).joins) == ["ann"]
        await node.stop()

    run(main())


def test_cancelled_read_loses_no_diff() -> None:
    async def main() -> None:
        node, presence = await alone()
        watch = presence.watch("room")
        await anext(watch)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(watch), 0.01)
        presence.track("room", "ann")
        assert list((await anext(watch)).joins) == ["ann"]
        await node.stop()

    run(main())


def test_aclosing_closes_a_watch() -> None:
    async def main() -> None:
        node, presence = await alone()
        async with contextlib.aclosing(presence.watch("room")) as diffs:
            await anext(diffs)
            assert not diffs.closed
        assert diffs.closed
        assert [diff async for diff in diffs] == []
        await node.stop()

    run(main())


class Closer(Observer):
    """Closes a watch when it is notified of a change."""

    watch: adsum.Watch | adsum.TopicsWatch | None = None

    def changed(self, topic: str, transitions: object) -> None:
        if self.watch is not None:
            self.watch.close()


def test_watch_that_begins_while_the_last_one_ends_receives_later_changes() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        presence, closer = adsum.Presence(node), Closer()
        node.observe(closer)
        async with node:
            closer.watch = presence.watch("room")
            presence.track("room", "ann", owner=None)
            watch = presence.watch("room")
            closer.watch = None
            assert list((await anext(watch)).joins) == ["ann"]
            presence.track("room", "bob", owner=None)
            assert list((await asyncio.wait_for(anext(watch), DEADLINE)).joins) == ["bob"]

    asyncio.run(main())
