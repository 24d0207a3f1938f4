"""Watching the members: joined, left and changed ones, merged for the slow."""

import asyncio
import gc
from collections.abc import Iterable

import pytest

import adsum
from adsum.driver.observer import Observer
from adsum.testing import MakeCluster
from tests.support.nodes import run
from tests.support.waiting import until

from .test_presence import alone

Brief = list[tuple[str, str]]


def next_of(watch: adsum.MembersWatch) -> adsum.MembersDiff | None:
    """The diff that is there to be read, in a test without an event loop."""
    return watch._take() if watch._has_more() else None


def brief(diff: adsum.MembersDiff | None) -> tuple[Brief, Brief, Brief]:
    assert diff is not None
    joined, left, changed = (
        [(member.name, member.status) for member in members]
        for members in (diff.joined, diff.left, diff.changed)
    )
    return joined, left, changed


def test_first_diff_has_all_members_and_later_ones_the_changes(cluster: MakeCluster) -> None:
    three = cluster(3)
    three.settle()
    watch = three[0].node.watch_members()
    assert brief(next_of(watch)) == ([("n1", "self"), ("n2", "up"), ("n3", "up")], [], [])
    three.settle()
    assert next_of(watch) is None
    three.kill(1)
    three.settle()
    assert brief(next_of(watch)) == ([], [], [("n2", "down")])
    three.restart(1)
    three.settle()
    assert brief(next_of(watch)) == ([("n2", "up")], [("n2", "down")], [])


def test_lost_link_makes_a_member_suspect_then_down(cluster: MakeCluster) -> None:
    two = cluster(2)
    two.settle()
    watch, statuses = two[0].node.watch_members(), list[str]()
    next_of(watch)
    two.kill(1)
    for _ in range(500):
        two.run(0.02)
        diff = next_of(watch)
        if diff is not None:
            statuses += [member.status for member in diff.changed]
    assert statuses == ["suspect", "down"]


def test_goodbye_is_a_change_to_left_until_its_linger_ends(cluster: MakeCluster) -> None:
    two = cluster(2, linger=30.0)
    two.settle()
    watch = two[0].node.watch_members()
    next_of(watch)
    two.stop(1)
    two.run(1)
    assert brief(next_of(watch)) == ([], [], [("n2", "left")])
    two.run(40)
    assert brief(next_of(watch)) == ([], [("n2", "left")], [])


def test_slow_reader_gets_no_change_that_was_undone(cluster: MakeCluster) -> None:
    two = cluster(2)
    two.settle()
    watch = two[0].node.watch_members()
    next_of(watch)
    for _ in range(3):
        two.partition([0], [1])
        two.settle()
        assert [m.status for m in two[0].node.members()] == ["self", "down"]
        two.heal()
        two.settle()
    assert next_of(watch) is None


def test_diffs_fold_to_the_members(cluster: MakeCluster) -> None:
    nodes = cluster(4, linger=3.0, forget_after=20.0)
    watch = nodes[0].node.watch_members()
    known: dict[tuple[str, int], adsum.MemberInfo] = {}
    for step in range(60):
        which = 1 + step % 3
        act = (step * 7) % 5
        if act == 0:
            nodes.restart(which)
        elif act == 1 and nodes[which].node.running:
            nodes.stop(which)
        elif act == 2:
            nodes.partition([0, 1], [2, 3])
        elif act == 3:
            nodes.heal()
        nodes.run(0.3 + 5 * (step % 2))
        diff = next_of(watch)
        if diff is not None:
            for member in diff.left:
                del known[member.name, member.incarnation]
            for member in diff.changed:
                assert (member.name, member.incarnation) in known
                known[member.name, member.incarnation] = member
            for member in diff.joined:
                assert (member.name, member.incarnation) not in known
                known[member.name, member.incarnation] = member
        assert reported(known.values()) == reported(nodes[0].node.members())


def reported(members: Iterable[adsum.MemberInfo]) -> list[tuple[str, int, str, str]]:
    return sorted((m.name, m.incarnation, m.status, m.address) for m in members)


class Counting(Observer):
    """Counts the reported changes of the members."""

    def __init__(self) -> None:
        self.count = 0

    def members_changed(self) -> None:
        self.count += 1


def test_members_are_reported_only_while_they_are_watched(cluster: MakeCluster) -> None:
    three, counting = cluster(3), Counting()
    node = three[0].node
    node.observe(counting)
    three.settle()
    assert counting.count == 0
    with node.watch_members() as watch:
        assert next_of(watch) is not None
        three.settle()
        assert counting.count == 0
        three.kill(1)
        three.settle()
        assert 1 <= counting.count <= 3
    before = counting.count
    three.restart(1)
    three.settle()
    assert counting.count == before
    assert node._members_feed is None
    assert len(node._observers) == 3


def test_closing_the_watch_or_the_node_ends_the_iteration() -> None:
    async def main() -> None:
        node, _ = await alone()
        diffs = list[adsum.MembersDiff]()

        async def read(watch: adsum.MembersWatch) -> None:
            async for diff in watch:
                diffs.append(diff)

        one, two = node.watch_members(), node.watch_members()
        tasks = [asyncio.create_task(read(watch)) for watch in (one, two)]
        await until(lambda: len(diffs) == 2)
        assert "open" in repr(one)
        one.close()
        await tasks[0]
        await node.stop()
        await tasks[1]
        assert "closed" in repr(two)
        assert node._members_feed is None
        with pytest.raises(adsum.NodeNotRunningError):
            node.watch_members()
        await node.start()
        assert [m.status for m in (await anext(node.watch_members())).joined] == ["self"]
        await node.stop()

    run(main())


def test_watch_left_early_is_collected() -> None:
    async def main() -> None:
        node, _ = await alone()
        async for diff in node.watch_members():
            assert diff.joined
            break
        gc.collect()
        await until(lambda: node._members_feed is None)
        await node.stop()

    run(main())
