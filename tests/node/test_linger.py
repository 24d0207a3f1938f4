"""Presences that end while their node is about to stop are still shown for `linger` seconds."""

import asyncio
from contextlib import asynccontextmanager
from typing import Any

import pytest

import adsum
from adsum.endings import CANCEL_GRACE
from adsum.errors import NotTrackedError
from adsum.testing import Cluster, MakeCluster
from tests.support.nodes import run
from tests.support.waiting import until


def stopping(cluster: MakeCluster, linger: float) -> Cluster:
    """Two nodes of which the first is about to stop, with a presence that has ended since."""
    two = cluster(2, linger=linger)
    with two[0].presence.track("room", "ann", owner=None):
        two.settle()
        two[0].node.begin_stop()
        assert two[0].node.stopping
    return two


def test_untrack_before_the_stop_leaves_at_once(cluster: MakeCluster) -> None:
    two = cluster(2, linger=5.0)
    tracked = two[0].presence.track("room", "ann", owner=None)
    two[0].presence.track("room", "bob", owner="connection")
    with two[0].presence.track("room", "cat", owner=None):
        two.settle()
    tracked.untrack()
    two[0].presence.untrack_all("connection")
    two.run(0.1)
    two.assert_online("room")


def test_presence_that_ends_during_the_stop_is_shown_for_linger_seconds(
    cluster: MakeCluster,
) -> None:
    two = stopping(cluster, 5.0)
    two.run(4.9)
    two.assert_online("room", "ann")
    two.run(0.2)
    two.assert_online("room")


def test_presence_that_ends_during_the_stop_lingers_with_the_goodbye(
    cluster: MakeCluster,
) -> None:
    two = stopping(cluster, 5.0)
    two.run(3.0)
    two.stop(0)
    two.run(4.9)
    two.assert_online("room", "ann", on=[1])
    two.run(0.2)
    two.assert_online("room", on=[1])


def test_presence_that_ends_during_the_stop_without_linger_leaves_at_once(
    cluster: MakeCluster,
) -> None:
    two = stopping(cluster, 0.0)
    assert two[0].presence.count("room") == 0
    two.run(0.1)
    two.assert_online("room")


def test_every_way_to_end_a_presence_lingers_during_the_stop(cluster: MakeCluster) -> None:
    two = cluster(2, linger=5.0)
    presence = two[0].presence
    tracked = presence.track("room", "ann", owner=None)
    presence.track("room", "bob", owner="connection")
    presence.track("room", "cat", owner="request")
    two[0].node.begin_stop()
    tracked.untrack()
    assert presence.untrack_all("connection") == 1
    presence.untrack("room", "cat", owner="request")
    two.run(4.9)
    two.assert_online("room", "ann", "bob", "cat")
    two.run(0.2)
    two.assert_online("room")


def test_handle_of_a_lingering_presence_has_ended(cluster: MakeCluster) -> None:
    two = cluster(1, linger=5.0)
    tracked = two[0].presence.track("room", "ann", owner=None)
    two[0].node.begin_stop()
    tracked.untrack()
    tracked.untrack()
    assert not tracked.active
    with pytest.raises(NotTrackedError):
        tracked.update({})


def test_owner_tracks_again_beside_its_lingering_presence(cluster: MakeCluster) -> None:
    two = stopping(cluster, 5.0)
    again = two[0].presence.track("room", "ann", {"n": 2}, owner=None)
    assert [meta.get("n") for meta in two[0].presence.get("room", "ann")] == [None, 2]
    two.run(5.1)
    assert again.active
    assert [meta.get("n") for meta in two[1].presence.get("room", "ann")] == [2]


def test_linger_of_one_run_does_not_end_presences_of_the_next(cluster: MakeCluster) -> None:
    two = stopping(cluster, 5.0)
    two.restart(0)
    assert not two[0].node.stopping
    two[0].presence.track("room", "bob", owner=None)
    two.run(30.0)
    two.assert_online("room", "bob")


def cancelled(cluster: MakeCluster, linger: float) -> Cluster:
    """Two nodes, the first with a presence whose block was cancelled just now."""
    two = cluster(2, linger=linger)
    with (  # noqa: PT012
        pytest.raises(asyncio.CancelledError),
        two[0].presence.track("room", "ann", owner=None),
    ):
        two.settle()
        raise asyncio.CancelledError
    return two


def test_cancelled_presence_lingers_if_the_node_stops_right_afterwards(
    cluster: MakeCluster,
) -> None:
    two = cancelled(cluster, 5.0)
    two.run(CANCEL_GRACE - 0.1)
    two.stop(0)
    two.run(4.9)
    two.assert_online("room", "ann", on=[1])
    two.run(0.2)
    two.assert_online("room", on=[1])


@pytest.mark.parametrize(("linger", "shown"), [(0.0, 0.0), (0.5, 0.5), (5.0, CANCEL_GRACE)])
def test_cancelled_presence_leaves_after_the_grace_if_the_node_goes_on(
    cluster: MakeCluster, linger: float, shown: float
) -> None:
    two = cancelled(cluster, linger)
    if shown:
        two.run(shown - 0.1)
        two.assert_online("room", "ann")
    two.run(0.2)
    two.assert_online("room")


def test_presence_of_a_task_lingers_if_it_was_cancelled_and_not_if_it_returned() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False, linger=30.0)
        presence = adsum.Presence(node)

        async def stay(key: str, seconds: float) -> None:
            presence.track("room", key)
            await asyncio.sleep(seconds)

        async with node:
            tasks = [asyncio.create_task(stay("ann", 60)), asyncio.create_task(stay("bob", 0))]
            await asyncio.sleep(0)
            tasks[0].cancel()
            await asyncio.wait(tasks)
            assert list(presence.list("room")) == ["ann"]

    run(main())


def test_presence_that_the_wrapped_lifespan_ends_lingers(cluster_name: str) -> None:
    async def main() -> None:
        watcher = adsum.Node(cluster=cluster_name)
        node = adsum.Node(cluster=cluster_name, linger=30.0)
        presence = adsum.Presence(node)

        @asynccontextmanager
        async def mine(app: Any) -> Any:
            with presence.track("workers", "ann"):
                yield

        async with watcher:
            seen = adsum.Presence(watcher)
            async with node.wrap_lifespan(mine)(None):
                await until(lambda: seen.count("workers") == 1)
                assert not node.stopping
            await until(lambda: {"left"} & {member.status for member in watcher.members()})
            assert seen.count("workers") == 1

    run(main())


def test_begin_stop_of_a_node_that_does_not_run_does_nothing() -> None:
    node = adsum.Node(siblings=False)
    node.begin_stop()
    assert not node.stopping
