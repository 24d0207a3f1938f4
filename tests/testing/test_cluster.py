"""The cluster that users test their applications with: real nodes, and no sleeping."""

import asyncio
import importlib
import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import adsum
from adsum.errors import NodeNotRunningError, UsageError
from adsum.testing import Cluster, MakeCluster

EXAMPLES = Path(__file__).parents[2] / "examples"


def people(cluster: MakeCluster) -> Cluster:
    """Three nodes, each with somebody in the room."""
    three = cluster(3)
    for member, key in zip(three, ("ann", "bob", "cleo"), strict=True):
        member.presence.track("room", key, owner=None)
    three.settle()
    three.assert_online("room", "ann", "bob", "cleo")
    return three


def test_virtual_time_advances_only_on_request(cluster: MakeCluster) -> None:
    two = cluster(2)
    two.settle()
    two[0].presence.track("room", "ann", owner=None)
    assert list(two[0].presence.list("room")) == ["ann"]
    assert list(two[1].presence.list("room")) == []
    two.run(0.1)
    assert list(two[1].presence.list("room")) == ["ann"]


def test_partition_lists_each_side_until_it_heals(cluster: MakeCluster) -> None:
    three = people(cluster)
    three.partition([0, 1], [2])
    three.settle()
    three.assert_online("room", "ann", "bob", on=[0, 1])
    three.assert_online("room", "cleo", on=[2])
    three.heal()
    three.settle()
    three.assert_online("room", "ann", "bob", "cleo")


def test_one_way_cut_hides_no_presence(cluster: MakeCluster) -> None:
    three = people(cluster)
    three.cut(0, 1)
    three.settle()
    three.assert_online("room", "ann", "bob", "cleo")


def test_killed_node_leaves_and_restarts_empty(cluster: MakeCluster) -> None:
    three = people(cluster)
    three.kill("n1")
    with pytest.raises(NodeNotRunningError):
        three[0].presence.list("room")
    three.settle()
    three.assert_online("room", "bob", "cleo")
    three.restart("n1")
    three.settle()
    three.assert_online("room", "bob", "cleo")
    three["n1"].presence.track("room", "ann", owner=None)
    three.settle()
    three.assert_online("room", "ann", "bob", "cleo")


def test_goodbye_lingers_as_configured(cluster: MakeCluster) -> None:
    two = cluster(2, linger=5.0)
    two[0].presence.track("room", "ann", owner=None)
    two.settle()
    two.stop(0)
    two.run(4.9)
    two.assert_online("room", "ann")
    two.run(0.2)
    two.assert_online("room")


def test_paused_node_is_hidden_and_comes_back(cluster: MakeCluster) -> None:
    three = people(cluster)
    three.pause(1)
    three.settle()
    three.assert_online("room", "ann", "cleo")
    three.resume(1)
    three.settle()
    three.assert_online("room", "ann", "bob", "cleo")


def test_failed_assertion_shows_lists_and_history(cluster: MakeCluster) -> None:
    three = people(cluster)
    three.kill(2)
    with pytest.raises(AssertionError) as failure:
        three.assert_online("room", "ann", "bob")
    told = str(failure.value)
    assert "['ann', 'bob'] should be on 'room'" in told
    assert "n1 lists ['ann', 'bob', 'cleo']" in told
    assert "n3 is paused or does not run" in told
    assert told.endswith("after, with seed 0: settle(), kill('n3')")


def test_unknown_node_is_named_in_the_error(cluster: MakeCluster) -> None:
    with pytest.raises(LookupError, match=r"'n7' is no member.*<n1>, <n2>"):
        cluster(2).kill("n7")
    one = cluster(1)
    one.kill(0)
    with pytest.raises(UsageError, match="'n1' does not run"):
        one.pause(0)


def test_watches_and_messages_work_in_any_event_loop(cluster: MakeCluster) -> None:
    async def main() -> None:
        two = cluster(2)
        two.settle()
        watch = two[1].presence.watch("room")
        inbox = two[1].pubsub.subscribe("room")
        assert not (await anext(watch)).joins
        with two[0].presence.track("room", "ann", {"at": "desk"}) as ann:
            two.run(0.1)
            assert list((await anext(watch)).joins) == ["ann"]
            ann.update({"at": "lunch"})
            two.run(0.1)
            assert list((await anext(watch)).updates) == ["ann"]
        two.run(0.1)
        assert list((await anext(watch)).leaves) == ["ann"]
        assert await two[0].pubsub.publish("room", {"text": "hi"}) == 0
        two.run(0.1)
        assert (await anext(inbox)).payload == {"text": "hi"}

    asyncio.run(main())


def test_start_does_not_wait_and_wait_joined_returns_when_time_passes(cluster: MakeCluster) -> None:
    async def main() -> None:
        two = cluster(2)
        node = adsum.Node(name="app")
        two.adopt(node)
        two[0].presence.track("room", "ann", owner=None)
        await node.start()
        assert not node.joined
        assert not await node.wait_joined(0.01)
        waiting = asyncio.create_task(node.wait_joined())
        await asyncio.sleep(0)
        two.run(0.1)
        assert await waiting
        assert list(adsum.Presence(node).list("room")) == ["ann"]
        two.restart(1)
        assert not two[1].node.joined
        two.settle()
        assert await two[1].node.wait_joined()
        await node.stop()

    asyncio.run(main())


def test_wait_joined_raises_when_the_node_is_killed(cluster: MakeCluster) -> None:
    async def main() -> None:
        two = cluster(2)
        waiting = asyncio.create_task(two[1].node.wait_joined())
        await asyncio.sleep(0)
        two.kill(1)
        with pytest.raises(NodeNotRunningError):
            await waiting

    asyncio.run(main())


def test_wait_joined_works_in_one_event_loop_after_another(cluster: MakeCluster) -> None:
    two = cluster(2)
    assert not asyncio.run(two[1].node.wait_joined(0.01))
    assert not asyncio.run(two[1].node.wait_joined(0.01))
    two.settle()
    assert asyncio.run(two[1].node.wait_joined(0.01))


def test_paused_node_publishes_on_resume(cluster: MakeCluster) -> None:
    async def main() -> None:
        two = cluster(2)
        two.settle()
        inbox = two[1].pubsub.subscribe("room")
        two.pause(0)
        await two[0].pubsub.publish("room", {"text": "late"})
        two.run(1.0)
        await two[1].pubsub.publish("room", {"text": "meanwhile"})
        two.resume(0)
        two.run(1.0)
        texts = [(await anext(inbox)).payload["text"] for _ in range(2)]
        assert texts == ["meanwhile", "late"]

    asyncio.run(main())


def test_partition_delays_detection_of_a_crash(cluster: MakeCluster) -> None:
    three = people(cluster)
    three.partition([0, 1], [2])
    three.kill(2)
    three.run(4.0)
    three.assert_online("room", "ann", "bob", "cleo")
    three.settle()
    three.assert_online("room", "ann", "bob")


def test_pause_does_not_shorten_detection_of_a_crash(cluster: MakeCluster) -> None:
    two = cluster(2)
    two[1].presence.track("room", "bob", owner=None)
    two.settle()
    two.pause(0)
    two.kill(1)
    two.settle()
    two.resume(0)
    two.settle()
    two.assert_online("room")


def test_closed_cluster_leaks_nothing_on_an_adopted_node() -> None:
    node = adsum.Node(name="app", siblings=False)
    for _ in range(3):
        with Cluster(1) as made:
            made.adopt(node)
            with pytest.raises(UsageError, match="there is a member named 'app'"):
                made.adopt(adsum.Node(name="app", siblings=False))
    assert node._observers == []


def test_presence_of_a_task_ends_with_it(cluster: MakeCluster) -> None:
    async def main() -> None:
        two = cluster(2)
        task = asyncio.create_task(visit(two[0].presence))
        await asyncio.sleep(0)
        two.settle()
        two.assert_online("room", "ann")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        two.settle()
        two.assert_online("room")

    async def visit(presence: adsum.Presence) -> None:
        presence.track("room", "ann")
        await asyncio.Event().wait()

    asyncio.run(main())


def test_node_is_adopted_before_start_and_released_after_the_test() -> None:
    async def main() -> None:
        made = Cluster(1)
        node = adsum.Node(name="app", siblings=False)
        presence = adsum.Presence(node)
        app = made.adopt(node)
        async with node:
            presence.track("room", "ann")
            made.settle()
            made.assert_online("room", "ann")
            made.kill(app)
            assert not node.running
            made.settle()
            made.assert_online("room")
            made.restart(app)
            made.settle()
            assert [member.status for member in node.members()] == ["self", "up"]
            with pytest.raises(UsageError, match="runs already"):
                made.adopt(node)
        assert not node.running
        made.close()
        async with node:
            assert len(node.members()) == 1

    asyncio.run(main())


@pytest.mark.skipif(importlib.util.find_spec("fastapi") is None, reason="needs fastapi")
def test_application_in_a_test_client_is_one_of_the_nodes(
    cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    from starlette.testclient import TestClient

    monkeypatch.syspath_prepend(EXAMPLES)
    application = importlib.import_module("fastapi_app")
    two = cluster(1)
    two.adopt(application.node)
    with TestClient(application.app) as client, client.websocket_connect("/rooms/1/ann") as ann:
        assert list(ann.receive_json()) == ["ann"]
        two.settle()
        two.assert_online("room:1", "ann")
        two[0].presence.track("room:1", "bob", owner=None)
        two.settle()
        assert list(ann.receive_json()) == ["ann", "bob"]
        two.kill(0)
        two.settle()
        assert list(ann.receive_json()) == ["ann"]


def test_track_without_an_owner_outside_of_any_task_is_refused(cluster: MakeCluster) -> None:
    with pytest.raises(adsum.UsageError, match="owner"):
        cluster(1)[0].presence.track("room", "ann")


@contextmanager
def running_elsewhere(node: adsum.Node) -> Iterator[None]:
    """Run a node in an event loop of another thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(node.start(), loop).result()
        yield
        asyncio.run_coroutine_threadsafe(node.stop(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_nodes_in_several_event_loops_are_refused() -> None:
    nodes = [adsum.Node(siblings=False), adsum.Node(siblings=False)]
    two = Cluster(0)
    for node in nodes:
        two.adopt(node)
    assert len(two) == 2
    with running_elsewhere(nodes[0]):
        two.settle()
        with running_elsewhere(nodes[1]), pytest.raises(UsageError, match="several event loops"):
            two.settle()
    two.close()


def test_untrack_on_a_paused_node_notifies_no_watch_before_it_resumes(cluster: MakeCluster) -> None:
    async def main() -> None:
        members = cluster(2)
        one = members[0]
        handle = one.presence.track("room", "ann", owner=None)
        watch = one.presence.watch("room")
        await anext(watch)
        members.pause(one)
        handle.untrack()
        members.run(1.0)
        assert not watch._has_more()
        members.resume(one)
        members.run(0.1)
        assert list((await anext(watch)).leaves) == ["ann"]

    asyncio.run(main())
