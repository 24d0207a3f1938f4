"""Watching several topics: each change exactly once, by topic, merged for the slow."""

import asyncio
import gc
from random import Random
from typing import Any

import pytest

import adsum
from adsum.testing import Cluster, ClusterMember, MakeCluster
from adsum.values.names import RESERVED
from tests.support.nodes import run
from tests.support.waiting import DEADLINE, until

from .test_presence import alone
from .test_watch import Closer, fold, listed


def next_of(watch: adsum.TopicsWatch) -> adsum.TopicDiff | None:
    """The diff that is there to be read, in a test without an event loop."""
    return watch._take() if watch._has_more() else None


class Reader:
    """Folds the diffs of a watch of several topics, and checks each against what it knows."""

    def __init__(self, watch: adsum.TopicsWatch) -> None:
        self.watch = watch
        self.seen: dict[str, dict[str, str]] = {}

    def read(self, most: float = float("inf")) -> list[str]:
        """Read up to so many diffs; returns their topics."""
        topics = list[str]()
        while len(topics) < most and (diff := next_of(self.watch)) is not None:
            self.take(diff)
            topics.append(diff.topic)
        return topics

    def take(self, diff: adsum.TopicDiff) -> None:
        assert diff.topic.startswith(self.watch.prefix)
        assert diff.joins or diff.leaves or diff.updates
        known = self.seen.setdefault(diff.topic, {})
        before = set(known.values())
        fold(known, diff)
        after = set(known.values())
        assert diff.arrived == tuple(sorted(after - before))
        assert diff.departed == tuple(sorted(before - after))
        if not known:
            del self.seen[diff.topic]

    def check(self, presence: adsum.Presence) -> None:
        assert self.seen == {
            topic: listed(presence, topic) for topic in presence.topics(self.watch.prefix)
        }


def test_first_diffs_have_all_presences_in_topic_order(cluster: MakeCluster) -> None:
    one = cluster(2)[0].presence
    for topic in ("room:2", "hall:1", "room:1"):
        one.track(topic, "ann", owner=topic)
    one.track("room:1", "bob", owner=None)
    watch = one.watch_topics("room:")
    diffs = [next_of(watch), next_of(watch)]
    assert [(diff.topic, list(diff.joins), diff.arrived) for diff in diffs if diff] == [
        ("room:1", ["ann", "bob"], ("ann", "bob")),
        ("room:2", ["ann"], ("ann",)),
    ]
    assert next_of(watch) is None


def test_watch_without_presences_has_no_first_diff(cluster: MakeCluster) -> None:
    one = cluster(1)[0].presence
    watch = one.watch_topics()
    assert next_of(watch) is None
    one.track("room", "ann", {"n": 1}, owner=None)
    one.node.driver.notify_observers()
    diff = next_of(watch)
    assert diff is not None
    assert (diff.topic, list(diff.joins), diff.arrived) == ("room", ["ann"], ("ann",))
    assert diff.joins["ann"]["metas"][0]["n"] == 1


def test_second_meta_arrives_no_key_and_last_leave_departs_it(cluster: MakeCluster) -> None:
    one = cluster(1)[0].presence
    watch = one.watch_topics()
    first = one.track("room", "ann", owner=1)
    seen = [next_now(one, watch)]
    second = one.track("room", "ann", owner=2)
    seen.append(next_now(one, watch))
    first.untrack()
    seen.append(next_now(one, watch))
    second.update({"n": 1})
    seen.append(next_now(one, watch))
    second.untrack()
    one.track("room", "bob", owner=None)
    seen.append(next_now(one, watch))
    assert [(diff.arrived, diff.departed) for diff in seen] == [
        (("ann",), ()),
        ((), ()),
        ((), ()),
        ((), ()),
        (("bob",), ("ann",)),
    ]


def test_key_replaced_by_another_meta_neither_arrives_nor_departs(cluster: MakeCluster) -> None:
    one = cluster(1)[0].presence
    watch = one.watch_topics()
    old = one.track("room", "ann", owner=1)
    next_now(one, watch)
    old.untrack()
    one.node.driver.notify_observers()
    one.track("room", "ann", owner=2)
    diff = next_now(one, watch)
    assert (list(diff.joins), list(diff.leaves)) == (["ann"], ["ann"])
    assert (diff.arrived, diff.departed) == ((), ())


def next_now(presence: adsum.Presence, watch: adsum.TopicsWatch) -> adsum.TopicDiff:
    presence.node.driver.notify_observers()
    diff = next_of(watch)
    assert diff is not None
    return diff


def test_topic_emptied_before_its_first_diff_is_skipped(cluster: MakeCluster) -> None:
    one = cluster(1)[0].presence
    gone = [one.track(f"room:{n}", "ann", owner=n) for n in range(3)]
    watch = one.watch_topics()
    gone[0].untrack()
    one.track("room:0", "bob", owner=None).untrack()
    gone[2].update({"n": 1})
    gone[1].untrack()
    one.track("room:1", "eve", owner=None)
    reader = Reader(watch)
    assert reader.read() == ["room:1", "room:2"]
    reader.check(one)
    one.node.driver.notify_observers()
    assert next_of(watch) is None


def test_later_watch_of_a_prefix_gets_no_earlier_change(cluster: MakeCluster) -> None:
    one = cluster(1)[0].presence
    early = Reader(one.watch_topics())
    ann = one.track("room:1", "ann", owner=None)
    one.node.driver.notify_observers()
    ann.untrack()
    bob = one.track("room:2", "bob", owner=None)
    late, other = Reader(one.watch_topics()), Reader(one.watch_topics("room:"))
    bob.update({"n": 1})
    one.node.driver.notify_observers()
    for reader in (early, late, other):
        assert reader.read() == ["room:2"]
        reader.check(one)


def test_reserved_topics_are_hidden(cluster: MakeCluster) -> None:
    one = cluster(1)[0].presence
    one.node.driver.track(RESERVED + "old", "ann", "{}")
    one.track("room", "ann", owner=None)
    watch = one.watch_topics()
    one.node.driver.track(RESERVED + "new", "ann", "{}")
    one.node.driver.notify_observers()
    assert Reader(watch).read() == ["room"]
    assert one.topics() == ["room"]
    assert one.topics(RESERVED) == []


def test_slow_reader_is_memory_bound_by_the_presences(cluster: MakeCluster) -> None:
    one = cluster(1)[0].presence
    watch = one.watch_topics()
    ann = one.track("room", "ann", {"n": 0}, owner=None)
    for number in range(2000):
        ann.update({"n": number})
        one.track(f"room:{number}", "bob", owner=None).untrack()
        one.node.driver.notify_observers()
    assert list(watch._pending) == ["room"]
    diff = next_of(watch)
    assert diff is not None
    assert diff.joins["ann"]["metas"][0]["n"] == 1999
    assert (diff.leaves, diff.updates, diff.departed) == ({}, {}, ())
    ann.untrack()
    next_now(one, watch)
    assert (watch._known, watch._pending, watch._first) == ({}, {}, {})


class Crowd:
    """Three nodes on which presences and watches come and go at random."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.random = Random(seed)
        self.mine = list[adsum.Tracked]()
        self.readers: list[tuple[ClusterMember, Reader]] = []

    def act(self) -> None:
        act = self.random.random()
        if act < 0.65:
            self.change(act)
        elif act < 0.76:
            self.watch_or_close(act)
        elif act < 0.85:
            self.cluster.partition([0], [1, 2]) if act < 0.8 else self.cluster.heal()
        elif act < 0.92:
            self.cluster.run(self.random.choice([0.01, 0.3, 7.0]))
        elif self.readers:
            self.random.choice(self.readers)[1].read(self.random.randrange(4))

    def change(self, act: float) -> None:
        if act < 0.35:
            topic = self.random.choice(["a:1", "a:2", "b:1", "b"])
            key, member = f"u{self.random.randrange(4)}", self.cluster[self.random.randrange(3)]
            self.mine.append(member.presence.track(topic, key, owner=object()))
        elif self.mine and act < 0.55:
            self.mine.pop(self.random.randrange(len(self.mine))).untrack()
        elif self.mine:
            self.random.choice(self.mine).update({"n": act})

    def watch_or_close(self, act: float) -> None:
        if act < 0.72:
            member = self.cluster[self.random.randrange(3)]
            prefix = self.random.choice(["", "a", "a:", "b:1", "c"])
            self.readers.append((member, Reader(member.presence.watch_topics(prefix))))
        elif self.readers:
            _, reader = self.readers.pop(self.random.randrange(len(self.readers)))
            reader.watch.close()


@pytest.mark.parametrize("seed", range(12))
def test_diffs_fold_to_the_lists_on_all_nodes(cluster: MakeCluster, seed: int) -> None:
    crowd = Crowd(cluster(3, seed=seed, forget_after=20.0), seed)
    for _ in range(150):
        crowd.act()
    crowd.cluster.heal()
    crowd.cluster.settle()
    assert crowd.readers
    for member, reader in crowd.readers:
        reader.read()
        reader.check(member.presence)


def test_killed_node_departs_and_its_own_watches_end(cluster: MakeCluster) -> None:
    two = cluster(2)
    two[1].presence.track("room", "ann", owner=None)
    watch, own = two[0].presence.watch_topics(), two[1].presence.watch_topics()
    two.settle()
    assert Reader(watch).read() == ["room"]
    two.kill(1)
    two.settle()
    diff = next_of(watch)
    assert diff is not None
    assert (list(diff.leaves), diff.departed) == (["ann"], ("ann",))
    assert own.closed
    assert two[1].presence._topic_feeds._watches == {}


def test_large_slice_is_shown_in_steps_to_a_watch(cluster: MakeCluster) -> None:
    two = cluster(2)
    readers = [Reader(two[0].presence.watch_topics(prefix)) for prefix in ("", "room:1")]
    two.partition([0], [1])
    for number in range(2500):
        two[1].presence.track(f"room:{number}", "ann", owner=number)
    two.heal()
    two.settle()
    assert len(readers[0].read()) == 2500
    assert len(readers[1].read()) == 1111
    for reader in readers:
        reader.check(two[0].presence)


def test_watch_left_early_is_collected_and_nothing_is_collected_for_it() -> None:
    async def main() -> None:
        node, presence = await alone()
        presence.track("room", "ann", owner=None)
        async for diff in presence.watch_topics():
            assert diff.topic == "room"
            break
        del diff
        gc.collect()
        await until(lambda: not presence._topic_feeds._watches)
        presence.track("room", "bob", owner=None)
        assert node.driver.engine.take_changes() == {}
        await node.stop()

    run(main())


def test_closing_the_watch_or_the_node_ends_the_iteration() -> None:
    async def main() -> None:
        node, presence = await alone()
        diffs = list[adsum.TopicDiff]()

        async def read(watch: adsum.TopicsWatch) -> None:
            async for diff in watch:
                diffs.append(diff)

        one, two = presence.watch_topics(), presence.watch_topics()
        tasks = [asyncio.create_task(read(watch)) for watch in (one, two)]
        presence.track("room", "ann", owner=None)
        await until(lambda: len(diffs) == 2)
        assert "0 topics waiting" in repr(one)
        one.close()
        one.close()
        await tasks[0]
        await node.stop()
        await tasks[1]
        assert "closed" in repr(two)
        with pytest.raises(adsum.NodeNotRunningError):
            presence.watch_topics()

    run(main())


def test_second_run_of_a_node_watches_again() -> None:
    async def main() -> None:
        node, presence = await alone()
        old = presence.watch_topics("room")
        await node.stop()
        await node.start()
        with presence.watch_topics("room") as watch:
            old.close()
            presence.track("room", "ann", owner=None)
            assert (await anext(watch)).arrived == ("ann",)
        await node.stop()

    run(main())


def test_topics_with_a_prefix_are_listed_sorted(cluster: MakeCluster) -> None:
    one = cluster(1)[0].presence
    for topic in ("room:b", "room:a", "hall", "Room:a", "room"):
        one.track(topic, "ann", owner=topic)
    assert one.topics() == ["Room:a", "hall", "room", "room:a", "room:b"]
    assert one.topics("room:") == ["room:a", "room:b"]
    assert one.topics("nothing") == []


@pytest.mark.parametrize("method", ["topics", "watch_topics"])
@pytest.mark.parametrize(
    ("prefix", "error"), [(b"room", TypeError), (None, TypeError), ("x" * 1025, ValueError)]
)
def test_wrong_prefix_raises(
    cluster: MakeCluster, method: str, prefix: object, error: type[Exception]
) -> None:
    one = cluster(1)[0].presence
    with pytest.raises(error, match="prefix"):
        getattr(one, method)(prefix)


def test_watch_of_several_topics_does_not_call_fetch() -> None:
    async def main() -> None:
        async def fetch(topic: str, entries: dict[str, adsum.PresenceEntry]) -> dict[str, Any]:
            calls.append(topic)
            return {key: {"user": key.title()} for key in entries}

        calls = list[str]()
        node = adsum.Node(siblings=False)
        presence = adsum.Presence(node, fetch=fetch)
        async with node:
            presence.track("room", "ann", owner=None)
            diff = await anext(presence.watch_topics())
            assert list(diff.joins["ann"]) == ["metas"]
            assert calls == []
            assert (await presence.fetch(diff.topic))["ann"]["user"] == "Ann"

    run(main())


def test_watch_that_begins_while_the_last_one_of_its_prefix_ends_receives_later_changes() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        presence, closer = adsum.Presence(node), Closer()
        node.observe(closer)
        async with node:
            closer.watch = presence.watch_topics("room")
            presence.track("room", "ann", owner=None)
            watch = presence.watch_topics("room")
            closer.watch = None
            assert list((await anext(watch)).joins) == ["ann"]
            presence.track("room", "bob", owner=None)
            assert list((await asyncio.wait_for(anext(watch), DEADLINE)).joins) == ["bob"]

    asyncio.run(main())
