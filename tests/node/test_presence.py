"""Presence on one node: what a call does by the time it returns, and how presences end."""

import asyncio
import gc
import threading
import weakref
from typing import Any

import pytest

import adsum
from tests.support.nodes import run
from tests.support.waiting import until


async def alone() -> tuple[adsum.Node, adsum.Presence]:
    node = adsum.Node(siblings=False)
    presence = adsum.Presence(node)
    await node.start()
    return node, presence


def test_presence_is_listed_when_track_returns() -> None:
    async def main() -> None:
        node, presence = await alone()
        presence.track("room", "ann", {"device": "phone"})
        [meta] = presence.list("room")["ann"]["metas"]
        assert meta["device"] == "phone"
        assert isinstance(meta["phx_ref"], str)
        assert presence.get("room", "ann") == [meta]
        assert presence.count("room") == 1
        assert presence.topics() == ["room"]
        await node.stop()

    run(main())


def test_list_of_an_empty_topic_is_empty() -> None:
    async def main() -> None:
        node, presence = await alone()
        assert presence.list("room") == {}
        assert presence.get("room", "ann") == []
        assert presence.count("room") == 0
        assert presence.topics() == []
        await node.stop()

    run(main())


def test_pages_of_a_list_are_in_its_order_and_belong_to_the_caller() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        presence = adsum.Presence(node)
        async with node:
            for user in ["zoe", "ann", "éva", "bob"]:
                presence.track("room", user, {"of": user})
            whole = presence.list("room")
            assert list(whole) == ["ann", "bob", "zoe", "éva"]
            for page in (presence.list("room", after=""), presence.list("room", limit=4)):
                assert list(page.items()) == list(whole.items())
            page = presence.list("room", after="ann", limit=2)
            assert page == {key: whole[key] for key in ("bob", "zoe")}
            page.clear()
            # The key need not be present, and the last page is short.
            assert list(presence.list("room", after="bobby", limit=5)) == ["zoe", "éva"]
            assert presence.list("room", after="éva", limit=5) == {}
            assert presence.list("hall", limit=5) == {}

    run(main())


def test_update_takes_a_meta_or_a_function_and_makes_a_new_ref() -> None:
    async def main() -> None:
        node, presence = await alone()
        me = presence.track("room", "ann", {"device": "phone"})
        [first] = presence.get("room", "ann")
        me.update({"device": "laptop"})
        me.update(lambda meta: {**meta, "away": True})
        [last] = presence.get("room", "ann")
        assert (last["device"], last["away"]) == ("laptop", True)
        assert last["phx_ref"] != first["phx_ref"]
        assert "phx_ref_prev" in last
        presence.update("room", "ann", {"device": "watch"})
        assert presence.get("room", "ann")[0]["device"] == "watch"
        await node.stop()

    run(main())


@pytest.mark.parametrize("change", ["update", "untrack", "untrack_all"])
def test_update_function_that_changes_the_presence_is_refused(change: str) -> None:
    async def main() -> None:
        node, presence = await alone()
        me = presence.track("room", "ann", {"n": 0})

        def change_it(meta: dict[str, Any]) -> dict[str, Any]:
            if change == "update":
                me.update({"n": 1})
            elif change == "untrack":
                me.untrack()
            else:
                presence.untrack_all()
            return {"n": 2}

        with pytest.raises(adsum.UsageError, match="must not change the presence itself"):
            me.update(change_it)
        assert me.active is (change == "update")
        metas = [meta["n"] for meta in presence.get("room", "ann")]
        assert metas == ([1] if change == "update" else [])
        await node.stop()

    run(main())


@pytest.mark.parametrize("end", ["untrack", "with", "untrack_all"])
def test_long_task_leaks_no_owner_callbacks(end: str) -> None:
    async def main() -> None:
        node, presence = await alone()
        task: Any = asyncio.current_task()

        def callbacks() -> int:
            held = [callback for callback, _ in task._callbacks or ()]
            return held.count(presence._endings.task_ended)

        for _ in range(5):
            me = presence.track("room", "ann")
            presence.track("room", "bob").untrack()
            assert callbacks() == 1
            if end == "untrack":
                me.untrack()
            elif end == "with":
                with me:
                    pass
            else:
                assert presence.untrack_all() == 1
            assert callbacks() == 0
        await node.stop()

    run(main())


def test_meta_from_get_can_be_passed_to_update() -> None:
    async def main() -> None:
        node, presence = await alone()
        me = presence.track("room", "ann", {"device": "phone"})
        me.update({**presence.get("room", "ann")[0], "away": True})
        [meta] = presence.get("room", "ann")
        assert {k: v for k, v in meta.items() if not k.startswith("phx_ref")} == {
            "device": "phone",
            "away": True,
        }
        await node.stop()

    run(main())


def test_with_block_untracks_its_presence() -> None:
    async def main() -> None:
        node, presence = await alone()
        with presence.track("room", "ann") as me:
            assert presence.count("room") == 1
            assert me.active
        assert presence.count("room") == 0
        assert not me.active
        with pytest.raises(ZeroDivisionError), presence.track("room", "ann"):
            _ = 1 / 0
        assert presence.count("room") == 0
        await node.stop()

    run(main())


async def _returns() -> None:
    return


async def _raises() -> None:
    raise RuntimeError("as planned")


async def _waits() -> None:
    await asyncio.sleep(3600)


@pytest.mark.parametrize("end", [_returns, _raises, _waits])
def test_presence_ends_with_its_owner_task(end: Any) -> None:
    async def main() -> None:
        node, presence = await alone()

        async def visit() -> None:
            presence.track("room", "ann")
            presence.track("hall", "ann")
            await end()

        task = asyncio.create_task(visit())
        await until(lambda: presence.count("room") == 1 or task.done())
        task.cancel()
        await asyncio.wait({task})
        await until(lambda: presence.topics() == [])
        assert list(presence._owners) == []
        if not task.cancelled():
            task.exception()
        await node.stop()

    run(main())


def test_presence_without_owner_stays_and_untrack_ends_all_of_an_owner() -> None:
    async def main() -> None:
        node, presence = await alone()

        async def visit() -> None:
            presence.track("room", "stays", owner=None)
            presence.track("room", "ann", owner="connection 1")
            presence.track("hall", "ann", owner="connection 1")
            presence.track("room", "bob", owner="connection 2")

        await asyncio.create_task(visit())
        await asyncio.sleep(0)
        assert list(presence.list("room")) == ["ann", "bob", "stays"]
        assert presence.untrack_all("connection 1") == 2
        assert presence.untrack_all("connection 1") == 0
        assert list(presence.list("room")) == ["bob", "stays"]
        assert presence.topics() == ["room"]
        await node.stop()

    run(main())


def test_one_key_may_have_several_metas() -> None:
    async def main() -> None:
        node, presence = await alone()
        presence.track("room", "ann", {"device": "phone"}, owner=1)
        laptop = presence.track("room", "ann", {"device": "laptop"}, owner=2)
        assert [m["device"] for m in presence.get("room", "ann")] == ["phone", "laptop"]
        assert presence.count("room") == 1
        laptop.untrack()
        assert [m["device"] for m in presence.get("room", "ann")] == ["phone"]
        await node.stop()

    run(main())


def test_duplicate_track_of_an_owner_is_refused_until_it_ends() -> None:
    async def main() -> None:
        node, presence = await alone()
        me = presence.track("room", "ann")
        with pytest.raises(adsum.AlreadyTrackedError, match=r"'ann'.*'room'"):
            presence.track("room", "ann")
        me.untrack()
        me.untrack()
        presence.track("room", "ann").untrack()
        with pytest.raises(adsum.NotTrackedError):
            me.update({})
        with pytest.raises(adsum.NotTrackedError):
            presence.update("room", "ann", {})
        presence.untrack("room", "ann")
        await node.stop()

    run(main())


@pytest.mark.parametrize(
    ("arguments", "error", "names"),
    [
        (("", "ann"), ValueError, "topic"),
        (("x" * 1025, "ann"), ValueError, "topic"),
        (("room", 5), TypeError, "key"),
        (("room", "ann", [1]), TypeError, "meta"),
        (("room", "ann", {"a": {"b": object()}}), TypeError, "meta.a.b"),
        (("room", "ann", {"a": "x" * 70_000}), ValueError, "65536"),
    ],
)
def test_invalid_track_is_refused_and_leaks_nothing(
    arguments: Any, error: type[Exception], names: str
) -> None:
    async def main() -> None:
        node, presence = await alone()
        with pytest.raises(error, match=names):
            presence.track(*arguments)
        assert presence.topics() == []
        assert list(presence._owners) == []
        await node.stop()

    run(main())


def test_update_function_that_raises_changes_nothing() -> None:
    async def main() -> None:
        node, presence = await alone()
        me = presence.track("room", "ann", {"n": 1})
        with pytest.raises(KeyError):
            me.update(lambda meta: {"n": meta["missing"]})
        with pytest.raises(TypeError, match=r"meta\.n"):
            me.update(lambda meta: {"n": {1, 2}})
        assert presence.get("room", "ann")[0]["n"] == 1
        await node.stop()

    run(main())


def test_track_on_a_node_that_is_not_running_raises() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        presence = adsum.Presence(node)
        for call in (
            lambda: presence.track("room", "ann"),
            lambda: presence.list("room"),
            lambda: presence.watch("room"),
            node.members,
            node.stats,
        ):
            with pytest.raises(adsum.NodeNotRunningError, match="not running"):
                call()

    run(main())


def test_node_stop_ends_presences_and_their_handles_stay_harmless() -> None:
    async def main() -> None:
        node, presence = await alone()
        me = presence.track("room", "ann", owner=None)
        await node.stop()
        assert not me.active
        me.untrack()
        await node.start()
        assert presence.topics() == []
        presence.track("room", "ann", owner=None)
        await node.stop()

    run(main())


def test_call_from_another_thread_raises() -> None:
    async def main() -> None:
        node, presence = await alone()
        caught: list[BaseException] = []

        def elsewhere() -> None:
            try:
                presence.list("room")
            except adsum.WrongThreadError as error:
                caught.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert "async def" in str(caught[0])
        await node.stop()

    run(main())


def test_track_outside_a_task_requires_an_owner() -> None:
    async def main() -> None:
        node, presence = await alone()
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def callback() -> None:
            with pytest.raises(adsum.UsageError, match="owner"):
                presence.track("room", "ann")
            presence.track("room", "ann", owner=None)
            outcome.set_result(None)

        asyncio.get_running_loop().call_soon(callback)
        await outcome
        await node.stop()

    run(main())


def test_two_presences_of_one_node_list_the_same() -> None:
    async def main() -> None:
        node, presence = await alone()
        other = adsum.Presence(node)
        presence.track("room", "ann")
        assert other.list("room") == presence.list("room")
        one, two = presence.watch("room"), other.watch("room")
        assert list((await anext(one)).joins) == list((await anext(two)).joins) == ["ann"]
        one.close()
        presence.track("room", "bob")
        assert list((await anext(two)).joins) == ["bob"]
        await node.stop()

    run(main())


class Mutable:
    """An owner that changes its hash."""

    value = 1

    def __hash__(self) -> int:
        return self.value


def test_owner_with_a_changed_hash_ends_with_the_node() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        presence, owner = adsum.Presence(node), Mutable()
        async with node:
            presence.track("room", "ann", owner=owner)
            watch = presence.watch("room")
            owner.value = 2
        assert watch.closed
        assert list(presence._owners) == []

    asyncio.run(main())


def test_handle_keeps_no_stopped_run_alive() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        presence = adsum.Presence(node)
        async with node:
            handle = presence.track("room", "ann", owner=None)
            run = weakref.ref(node.driver)
        await asyncio.sleep(0)
        gc.collect()
        assert run() is None
        assert not handle.active

    asyncio.run(main())
