"""Presences with a linger of their own: they stay for some seconds after their owners broke."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import adsum
from adsum.errors import AlreadyTrackedError, ConfigurationError, NotTrackedError
from adsum.replication import grace
from adsum.testing import Cluster, MakeCluster
from tests.support.nodes import run


class LostError(Exception):
    """A connection was lost."""


def lose(presence: adsum.Presence, key: str = "ann", **options: Any) -> adsum.Tracked:
    """Track a presence in a block that an exception ends; returns its handle."""
    given: dict[str, Any] = {"owner": f"session of {key}", "linger": 15.0, **options}
    with pytest.raises(LostError), presence.track("room", key, **given) as tracked:
        raise LostError
    return tracked


def metas(cluster: Cluster, on: int = 0, key: str = "ann") -> list[Any]:
    """The values of `n` in the metas of a key."""
    return [meta.get("n") for meta in cluster[on].presence.get("room", key)]


def ready(watch: Any) -> Iterator[Any]:
    """The diffs that a watch has for its reader now."""
    while watch._has_more():
        yield watch._take()


# Broken, or ended by intent.


def test_broken_presence_is_listed_everywhere_until_its_deadline(cluster: MakeCluster) -> None:
    two = cluster(2)
    tracked = lose(two[0].presence)
    assert not tracked.active
    assert two[0].node.stats()["lingering_presences"] == 1
    two.run(14.9)
    two.assert_online("room", "ann")
    two.run(0.2)
    two.assert_online("room")
    assert two[0].node.stats()["lingering_presences"] == 0


def test_presence_without_linger_leaves_at_once_when_it_breaks(cluster: MakeCluster) -> None:
    two = cluster(2)
    lose(two[0].presence, linger=0)
    assert two[0].presence.count("room") == 0


def test_lost_owner_breaks_all_its_presences(cluster: MakeCluster) -> None:
    two = cluster(2)
    presence = two[0].presence
    for key, linger in (("ann", 15.0), ("bob", 5.0), ("cat", 0.0)):
        presence.track("room", key, owner="connection", linger=linger)
    presence.track("room", "dan", owner="another", linger=15.0)
    assert presence.lost("connection") == 3
    assert presence.lost("connection") == 0
    two.run(0.5)
    two.assert_online("room", "ann", "bob", "dan")
    two.run(4.6)
    two.assert_online("room", "ann", "dan")
    two.run(10.0)
    two.assert_online("room", "dan")


INTENDED: list[Callable[[adsum.Presence, adsum.Tracked], object]] = [
    lambda _, tracked: tracked.untrack(),
    lambda presence, _: presence.untrack("room", "ann", owner="session"),
    lambda presence, _: presence.untrack_all("session"),
    lambda _, tracked: tracked.__exit__(None, None, None),
]


@pytest.mark.parametrize("end", INTENDED)
def test_intended_end_is_immediate(
    cluster: MakeCluster, end: Callable[[adsum.Presence, adsum.Tracked], object]
) -> None:
    two = cluster(2)
    tracked = two[0].presence.track("room", "ann", owner="session", linger=15.0)
    two.run(0.5)
    end(two[0].presence, tracked)
    assert two[0].presence.count("room") == 0
    two.run(0.1)
    two.assert_online("room")


@pytest.mark.parametrize("end", INTENDED[:3])
def test_intended_end_ends_a_lingering_presence_at_once(
    cluster: MakeCluster, end: Callable[[adsum.Presence, adsum.Tracked], object]
) -> None:
    two = cluster(2)
    tracked = lose(two[0].presence, owner="session")
    lose(two[0].presence, "bob")
    end(two[0].presence, tracked)
    assert list(two[0].presence.list("room")) == ["bob"]


def test_untrack_all_counts_lingering_presences(cluster: MakeCluster) -> None:
    presence = cluster(1)[0].presence
    lose(presence, "ann", owner="session")
    presence.track("room", "bob", owner="session")
    assert presence.untrack_all("session") == 2


def test_untrack_of_a_key_leaves_the_other_lingering_keys_of_its_owner(
    cluster: MakeCluster,
) -> None:
    presence = cluster(1)[0].presence
    lose(presence, "ann", owner="session")
    lose(presence, "bob", owner="session")
    presence.untrack("room", "ann", owner="session")
    assert list(presence.list("room")) == ["bob"]


@pytest.mark.parametrize(("end", "stays"), [("return", False), ("raise", True), ("cancel", True)])
def test_task_breaks_its_presence_by_exception_or_cancellation(end: str, stays: bool) -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        presence = adsum.Presence(node)

        async def handle() -> None:
            presence.track("room", "ann", linger=30.0)
            await asyncio.sleep(60 if end == "cancel" else 0)
            if end == "raise":
                raise LostError

        async with node:
            task = asyncio.create_task(handle())
            await asyncio.sleep(0)
            assert presence.count("room") == 1
            if end == "cancel":
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.sleep(0)  # an eager task may have ended in this very turn
            assert presence.count("room") == stays

    run(main())


def test_exception_of_a_broken_task_is_still_reported_as_never_retrieved() -> None:
    reported: list[str] = []

    async def handle(presence: adsum.Presence) -> None:
        presence.track("room", "ann", linger=30.0)
        raise LostError

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context["message"]))
        node = adsum.Node(siblings=False)
        presence = adsum.Presence(node)
        async with node:
            task = asyncio.create_task(handle(presence))
            await asyncio.wait([task])
            assert presence.count("room") == 1
            died = weakref.ref(task)
            del task
            gc.collect()
            assert died() is None, "a lingering presence keeps its task alive"

    run(main())
    assert reported == ["Task exception was never retrieved"]


# Taking over.


def test_owner_that_returns_takes_over_and_the_meta_is_updated_in_place(
    cluster: MakeCluster,
) -> None:
    two = cluster(2)
    lose(two[0].presence, meta={"n": 1})
    two.run(0.5)
    watch = two[1].presence.watch("room")
    watch_topics = two[1].presence.watch_topics()
    assert len([*ready(watch), *ready(watch_topics)]) == 2
    again = two[0].presence.track("room", "ann", {"n": 2}, owner="session of ann")
    two.run(30.0)
    two.assert_online("room", "ann")
    assert again.active
    assert metas(two, 1) == [2]
    [diff], [topic_diff] = ready(watch), ready(watch_topics)
    assert (dict(diff.joins), dict(diff.leaves), list(diff.updates)) == ({}, {}, ["ann"])
    assert (topic_diff.arrived, topic_diff.departed) == ((), ())


def test_take_over_with_an_equal_meta_changes_nothing(cluster: MakeCluster) -> None:
    two = cluster(1)
    lose(two[0].presence, meta={"n": 1})
    before = two[0].presence.get("room", "ann")
    two[0].presence.track("room", "ann", {"n": 1}, owner="session of ann")
    assert two[0].presence.get("room", "ann") == before
    two.run(30.0)
    two.assert_online("room", "ann")


def test_second_break_starts_a_new_grace(cluster: MakeCluster) -> None:
    two = cluster(2)
    lose(two[0].presence)
    two.run(10.0)
    lose(two[0].presence)
    two.run(14.9)
    two.assert_online("room", "ann")
    two.run(0.2)
    two.assert_online("room")


def test_second_device_with_an_owner_of_its_own_never_ends_the_grace(
    cluster: MakeCluster,
) -> None:
    two = cluster(2)
    lose(two[0].presence, owner="phone", meta={"n": 1})
    laptop = two[0].presence.track("room", "ann", {"n": 2}, owner="laptop", linger=15.0)
    assert metas(two) == [1, 2]
    laptop.update({"n": 3})
    laptop.untrack()
    two.run(14.9)
    two.assert_online("room", "ann")
    assert metas(two, 1) == [1]
    two.run(0.2)
    two.assert_online("room")


def test_task_does_not_take_over_from_an_owner_that_can_return(cluster: MakeCluster) -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        presence = adsum.Presence(node)
        async with node:
            lose(presence, owner="phone", meta={"n": 1})
            presence.track("room", "ann", {"n": 2})
            assert len(presence.get("room", "ann")) == 2

    run(main())


def test_task_takes_over_from_the_task_with_the_earliest_deadline() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        presence = adsum.Presence(node)

        async def handle(n: int, linger: float, *, breaks: bool) -> None:
            presence.track("room", "ann", {"n": n}, linger=linger)
            await asyncio.sleep(0)
            if breaks:
                raise LostError
            await asyncio.sleep(60)

        async with node:
            work = [handle(1, 60.0, breaks=True), handle(2, 30.0, breaks=True)]
            await asyncio.gather(*work, return_exceptions=True)
            task = asyncio.create_task(handle(3, 30.0, breaks=False))
            await asyncio.sleep(0)
            assert [meta["n"] for meta in presence.get("room", "ann")] == [1, 3]
            task.cancel()

    run(main())


def test_owner_tracks_again_instead_of_an_error_if_either_call_has_a_linger(
    cluster: MakeCluster,
) -> None:
    presence = cluster(1)[0].presence
    presence.track("room", "ann", {"n": 1}, owner="session")
    with pytest.raises(AlreadyTrackedError):
        presence.track("room", "ann", {"n": 2}, owner="session")
    presence.track("room", "ann", {"n": 2}, owner="session", linger=15.0)
    presence.track("room", "ann", {"n": 3}, owner="session")
    assert [meta["n"] for meta in presence.get("room", "ann")] == [3]
    with pytest.raises(AlreadyTrackedError):
        presence.track("room", "ann", {"n": 4}, owner="session")


@pytest.mark.parametrize("lingers", [False, True])
@pytest.mark.parametrize("error", [None, LostError])
def test_late_end_of_the_old_handle_leaves_the_presence_that_was_taken_over(
    cluster: MakeCluster, lingers: bool, error: type[Exception] | None
) -> None:
    two = cluster(2)
    presence = two[0].presence
    old = presence.track("room", "ann", {"n": 1}, owner="session", linger=15.0)
    if lingers:
        presence.lost("session")
    new = presence.track("room", "ann", {"n": 2}, owner="session", linger=15.0)
    assert (old.active, new.active) == (False, True)
    with pytest.raises(NotTrackedError):
        old.update({"n": 3})
    old.__exit__(error, None, None)
    old.untrack()
    two.run(30.0)
    assert metas(two, 1) == [2]
    assert new.active


def test_late_end_of_the_old_handle_leaves_the_grace_of_the_new_one(cluster: MakeCluster) -> None:
    two = cluster(1)
    old = lose(two[0].presence)
    new = lose(two[0].presence)
    old.untrack()
    two.run(14.9)
    two.assert_online("room", "ann")
    new.untrack()
    two.assert_online("room")


def test_presence_lingers_for_all_presence_objects_of_its_node(cluster: MakeCluster) -> None:
    two = cluster(1)
    other = adsum.Presence(two[0].node)
    lose(two[0].presence, meta={"n": 1})
    again = other.track("room", "ann", {"n": 2}, owner="session of ann", linger=15.0)
    assert metas(two) == [2]
    assert other.lost("session of ann") == 1
    assert not again.active
    assert two[0].presence.untrack_all("session of ann") == 1
    two.assert_online("room")


def test_presence_on_another_node_is_listed_beside_the_lingering_one(
    cluster: MakeCluster,
) -> None:
    two = cluster(2)
    lose(two[0].presence, meta={"n": 1})
    two.run(0.5)
    watch = two[0].presence.watch_topics()
    two[1].presence.track("room", "ann", {"n": 2}, owner="session of ann", linger=15.0)
    two.run(0.5)
    assert metas(two) == [1, 2]
    two.run(15.1)
    assert metas(two) == metas(two, 1) == [2]
    assert [diff.departed for diff in ready(watch) if diff.departed] == []


# Bounds, stops and crashes.


def test_one_more_lingering_presence_than_the_bound_ends_the_one_with_the_earliest_deadline(
    cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grace, "MAX_LINGERING", 2)
    presence = cluster(1)[0].presence
    for key, linger in (("ann", 10.0), ("bob", 5.0), ("cat", 20.0)):
        lose(presence, key, linger=linger)
    assert list(presence.list("room")) == ["ann", "cat"]


def test_many_lingering_presences_end_in_steps(
    cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grace, "MOST_AT_ONCE", 10)
    two = cluster(2)
    for number in range(95):
        lose(two[0].presence, f"key {number}")
    two.run(15.1)
    two.assert_online("room")


def test_pause_of_the_process_shortens_no_grace(cluster: MakeCluster) -> None:
    two = cluster(1)
    lose(two[0].presence)
    two.run(1.0)
    two.pause(0)
    two.run(60.0)
    two.resume(0)
    two.run(10.0)
    two.assert_online("room", "ann")
    two.run(5.1)
    two.assert_online("room")


def test_crash_of_the_node_ends_lingering_presences(cluster: MakeCluster) -> None:
    two = cluster(2)
    lose(two[0].presence)
    two.run(0.5)
    two.kill(0)
    two.run(0.5)
    two.assert_online("room", on=[1])


@pytest.mark.parametrize("linger", [0.0, 5.0])
def test_stop_of_the_node_applies_its_own_linger_to_lingering_presences(
    cluster: MakeCluster, linger: float
) -> None:
    two = cluster(2, linger=linger)
    lose(two[0].presence)
    two.run(0.5)
    two.stop(0)
    if linger:
        two.run(linger - 0.1)
        two.assert_online("room", "ann", on=[1])
    two.run(0.2)
    two.assert_online("room", on=[1])


@pytest.mark.parametrize(("own", "of_node", "longer"), [(15.0, 5.0, 15.0), (5.0, 15.0, 15.0)])
def test_presence_that_breaks_during_the_stop_lingers_for_the_longer_of_both(
    cluster: MakeCluster, own: float, of_node: float, longer: float
) -> None:
    two = cluster(1, linger=of_node)
    two[0].node.begin_stop()
    lose(two[0].presence, linger=own)
    two.run(longer - 0.1)
    two.assert_online("room", "ann")
    two.run(0.2)
    two.assert_online("room")


def test_intended_end_of_a_lingering_presence_during_the_stop_keeps_the_linger_of_the_node(
    cluster: MakeCluster,
) -> None:
    two = cluster(1, linger=5.0)
    lose(two[0].presence, owner="session", linger=60.0)
    two[0].node.begin_stop()
    two[0].presence.untrack_all("session")
    two.run(4.9)
    two.assert_online("room", "ann")
    two.run(0.2)
    two.assert_online("room")


# Wrong arguments.


@pytest.mark.parametrize("linger", [-1, 3601, float("nan"), float("inf"), "15", None, True])
def test_linger_out_of_range_is_refused(cluster: MakeCluster, linger: Any) -> None:
    presence = cluster(1)[0].presence
    with pytest.raises(ConfigurationError, match=r"^linger=.*: must be .* from 0 to 3600$"):
        presence.track("room", "ann", owner=None, linger=linger)
    assert presence.count("room") == 0


def test_untrack_on_a_node_that_does_not_run_does_nothing() -> None:
    adsum.Presence(adsum.Node(siblings=False)).untrack("room", "ann", owner="session")
