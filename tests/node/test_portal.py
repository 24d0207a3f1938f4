"""The portal: calls from real threads reach the node once each, and none is lost silently."""

import asyncio
import gc
import socket
import sys
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

import adsum
from adsum.portal.portalconnection import close_all
from tests.support.waiting import eventually, until


@pytest.fixture
def portal() -> Iterator[adsum.Portal]:
    with adsum.Portal(adsum.Node(siblings=False)) as portal:
        yield portal


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """The results of the same work in several threads at once."""
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(work, range(count)))


def in_thread_soon(work: Callable[[], Any]) -> "tuple[threading.Thread, list[Any]]":
    """Start work in a thread; its result or error is appended to a list."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


def read_diff(diffs: adsum.PortalWatch) -> adsum.Diff | None:
    """The next diff, unless the machine is too busy to deliver it in time."""
    try:
        return next(diffs)
    except TimeoutError:
        return None


def is_queued(portal: adsum.Portal) -> bool:
    """Whether a call waits for the event loop."""
    queue = portal._connection._queue
    return queue is not None and bool(queue._queued)


def test_construction_starts_nothing() -> None:
    before = threading.active_count()
    portal = adsum.Portal(adsum.Node(siblings=False))
    assert not portal.node.running
    assert threading.active_count() == before
    portal.close()
    with pytest.raises(adsum.NodeNotRunningError, match="portal is closed"):
        portal.list("room")


def test_first_uses_in_many_threads_start_one_node() -> None:
    with adsum.Portal(adsum.Node(siblings=False)) as portal:
        names = in_threads(8, lambda _: portal.call(lambda: portal.node.name))
        assert len(set(names)) == 1
    assert not portal.node.running


def test_first_uses_of_several_portals_start_their_node_once() -> None:
    for _ in range(5):
        node, barrier = adsum.Node(siblings=False), threading.Barrier(4)
        portals = [adsum.Portal(node) for _ in range(4)]

        def count(number: int, portals: Any = portals, barrier: Any = barrier) -> int:
            barrier.wait(30)
            return int(portals[number].count("room"))

        assert in_threads(4, count) == [0] * 4
        for portal in portals:
            portal.close()
        assert not node.running


def test_methods_have_the_results_of_presence(portal: adsum.Portal) -> None:
    handle = portal.track("room", "ann", {"device": "phone"})
    portal.track("room", "bob", owner="session")
    assert list(portal.list("room")) == ["ann", "bob"]
    assert list(portal.list("room", limit=1)) == ["ann"]
    assert list(portal.list("room", after="ann", limit=1)) == ["bob"]
    assert portal.count("room") == 2
    assert portal.topics() == portal.topics("ro") == ["room"]
    assert portal.topics("hall") == []
    handle.update(lambda meta: {**meta, "typing": True})
    assert portal.get("room", "ann")[0]["typing"] is True
    portal.update("room", "bob", {"away": True}, owner="session")
    assert portal.get("room", "bob")[0]["away"] is True
    assert portal.untrack_all("session") == 1
    portal.untrack("room", "bob", owner="session")
    handle.untrack()
    assert not handle.active
    assert portal.list("room") == {}


def test_fetch_adds_fields() -> None:
    async def names(topic: str, entries: Any) -> Any:
        return {key: {"name": key.title()} for key in entries}

    with adsum.Portal(adsum.Node(siblings=False), fetch=names) as portal:
        portal.track("room", "ann")
        assert portal.fetch("room")["ann"]["name"] == "Ann"
        portal.track("room", "bob")
        page = portal.fetch("room", after="ann", limit=1)
        assert {key: entry["name"] for key, entry in page.items()} == {"bob": "Bob"}


def test_dropped_handle_keeps_its_presence_and_each_handle_owns_one(portal: adsum.Portal) -> None:
    portal.track("room", "ann")
    with portal.track("room", "ann") as second:
        assert len(portal.get("room", "ann")) == 2
        assert second.active
    assert len(portal.get("room", "ann")) == 1


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda p: p.track(5, "ann"), TypeError, "topic"),
        (lambda p: p.track("room", ""), ValueError, "key"),
        (lambda p: p.track("room", "ann", {"a": {1, 2}}), TypeError, "meta"),
        (lambda p: p.track("room", "ann", owner=[]), TypeError, "hashable"),
        (lambda p: p.track("room", "ann", owner=adsum.CURRENT_TASK), adsum.UsageError, "no task"),
        (lambda p: p.untrack_all(adsum.CURRENT_TASK), adsum.UsageError, "no task"),
        (lambda p: p.update("room", "x", {}, owner=1), adsum.NotTrackedError, "not tracked"),
        (lambda p: p.publish("room", {}, local="no"), adsum.ConfigurationError, "local"),
        (lambda p: p.publish("room", {}, exclude=1), adsum.ConfigurationError, "exclude"),
        (lambda p: p.publish("room", [1]), TypeError, "payload"),
        (lambda p: p.subscribe("room", limit=0), adsum.ConfigurationError, "limit"),
        (lambda p: p.subscribe("room", limit_bytes=0), adsum.ConfigurationError, "limit_bytes"),
        (lambda p: p.watch("room", timeout=-1), adsum.ConfigurationError, "timeout"),
        (lambda p: p.call(5), adsum.ConfigurationError, "function"),
    ],
)
def test_bad_argument_raises_at_the_call(
    portal: adsum.Portal, call: Callable[[Any], Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        call(portal)


@pytest.mark.parametrize("settings", [{"timeout": 0}, {"node": 5}, {"fetch": 5}])
def test_bad_setting_is_refused(settings: Any) -> None:
    with pytest.raises(adsum.ConfigurationError):
        adsum.Portal(**settings)


def test_same_owner_twice_raises(portal: adsum.Portal) -> None:
    portal.track("room", "ann", owner="session")
    with pytest.raises(adsum.AlreadyTrackedError):
        portal.track("room", "ann", owner="session")


def test_calls_from_four_threads_are_each_executed_once(portal: adsum.Portal) -> None:
    executed: list[int] = []

    def execute(number: int) -> int:
        executed.append(number)
        return number

    def calls(thread: int) -> list[int]:
        return [portal.call(execute, thread * 2500 + number) for number in range(2500)]

    results = [number for each in in_threads(4, calls) for number in each]
    assert results == list(range(10_000))
    assert sorted(executed) == results


def test_error_of_a_call_keeps_its_traceback(portal: adsum.Portal) -> None:
    async def fails() -> None:
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside") as caught:
        portal.call(fails)
    assert "fails" in [entry.name for entry in caught.traceback]


def test_call_from_the_thread_of_the_node_is_refused(portal: adsum.Portal) -> None:
    with pytest.raises(adsum.UsageError, match="would wait for itself"):
        portal.call(lambda: portal.count("room"))
    with pytest.raises(adsum.UsageError, match="would wait for itself"):
        portal.call(lambda: portal.close())
    assert portal.count("room") == 0


def test_call_times_out_and_its_work_continues() -> None:
    release, done = threading.Event(), threading.Event()

    async def work() -> None:
        await asyncio.to_thread(release.wait)
        done.set()

    with adsum.Portal(adsum.Node(siblings=False), timeout=0.2) as portal:
        with pytest.raises(TimeoutError, match=r"within 0\.2 s"):
            portal.call(work)
        release.set()
        assert done.wait(30)


def test_function_may_raise_a_timeout_of_its_own(portal: adsum.Portal) -> None:
    async def late() -> None:
        raise TimeoutError("of the function")

    with pytest.raises(TimeoutError, match="of the function"):
        portal.call(late)


def test_acall_waits_in_another_event_loop(portal: adsum.Portal) -> None:
    portal.track("room", "ann")

    async def main() -> list[int]:
        counts = [portal.acall(adsum.Presence(portal.node).count, "room") for _ in range(300)]
        return await asyncio.gather(*counts)

    assert asyncio.run(main()) == [1] * 300


def test_acall_of_a_function_that_raises_stop_iteration_ends(portal: adsum.Portal) -> None:
    async def main() -> None:
        async with asyncio.timeout(10):
            await portal.acall(next, iter(()))

    with pytest.raises(RuntimeError, match="raised StopIteration"):
        asyncio.run(main())


def test_cancelled_acall_that_has_not_begun_is_not_executed(portal: adsum.Portal) -> None:
    entered, release, executed = threading.Event(), threading.Event(), list[int]()

    def block() -> None:
        entered.set()
        release.wait(30)

    thread, _ = in_thread_soon(lambda: portal.call(block))
    assert entered.wait(30)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await portal.acall(executed.append, 1)

    asyncio.run(main())
    release.set()
    thread.join()
    portal.count("room")
    assert executed == []


def test_close_ends_waiting_calls_with_an_error(portal: adsum.Portal) -> None:
    begun = threading.Event()

    async def forever() -> None:
        begun.set()
        await asyncio.Event().wait()

    thread, results = in_thread_soon(lambda: portal.call(forever))
    assert begun.wait(30)
    portal.close()
    thread.join()
    assert isinstance(results[0], adsum.NodeNotRunningError)
    portal.close()


def test_watch_delivers_each_change_once_across_timeouts(portal: adsum.Portal) -> None:
    with portal.watch("room", timeout=0.2) as diffs:
        assert eventually(lambda: read_diff(diffs)).joins == {}
        with pytest.raises(TimeoutError, match="may go on"):
            next(diffs)
        keys = [f"user {number}" for number in range(50)]
        thread, _ = in_thread_soon(lambda: [portal.track("room", key) for key in keys])
        joined: list[str] = []

        def read() -> bool:
            diff = read_diff(diffs)
            joined.extend(diff.joins if diff else ())
            return len(joined) >= len(keys)

        eventually(read, "all joins are read")
        thread.join()
        assert sorted(joined) == sorted(keys)
    assert list(diffs) == []


def test_subscription_yields_messages_in_order(portal: adsum.Portal) -> None:
    messages = portal.subscribe("room", timeout=30)
    own = portal.subscribe("room", timeout=0.1)
    for number in range(20):
        assert portal.publish("room", {"number": number}, exclude=own) == 0
    assert [next(messages).payload["number"] for _ in range(20)] == list(range(20))
    with pytest.raises(TimeoutError):
        next(own)
    messages.close()
    messages.close()
    assert messages.closed
    assert list(messages) == []


def test_bytes_are_published_and_read_in_threads(portal: adsum.Portal) -> None:
    messages = portal.subscribe("room", timeout=30)
    data = bytearray(b"x" * 300_000)
    assert portal.publish("room", data) == 0
    assert portal.publish("room", b"") == 0
    assert [next(messages).payload, next(messages).payload] == [bytes(data), b""]


def test_portal_subscription_reads_several_topics(portal: adsum.Portal) -> None:
    messages = portal.subscribe("a", timeout=30)
    for topic in ("b", "c", "b"):
        messages.add(topic)
    messages.remove("a")
    assert messages.topics == ("b", "c")
    for topic in ("a", "c", "b"):
        portal.publish(topic, {})
    assert [next(messages).topic for _ in range(2)] == ["c", "b"]
    with pytest.raises(ValueError, match="topic"):
        messages.add("")
    messages.close()
    with pytest.raises(adsum.NodeNotRunningError):
        messages.add("d")


def test_portal_subscription_is_bounded_in_bytes(portal: adsum.Portal) -> None:
    messages = portal.subscribe("room", limit_bytes=1000, timeout=30)
    for number in range(5):
        portal.publish("room", bytes([number]) * 400)
    assert messages.dropped == 3
    assert next(messages).payload[0] == 3


def test_full_subscription_drops_the_oldest_message(portal: adsum.Portal) -> None:
    messages = portal.subscribe("room", limit=1, timeout=30)
    portal.publish("room", {"number": 1})
    portal.publish("room", {"number": 2})
    assert messages.dropped == 1
    assert next(messages).payload["number"] == 2


@pytest.mark.parametrize("end", ["reader", "portal"])
def test_end_wakes_the_thread_that_reads(portal: adsum.Portal, end: str) -> None:
    messages = portal.subscribe("room")
    thread, results = in_thread_soon(lambda: list(messages))
    eventually(lambda: messages._pending is not None, "the thread reads")
    with pytest.raises(adsum.UsageError, match="two threads read"):
        next(messages)
    (messages if end == "reader" else portal).close()
    thread.join(30)
    assert results == [[]]


def test_thread_with_the_id_of_the_ended_one_reads_the_end(portal: adsum.Portal) -> None:
    diffs = portal.watch("room")
    next(diffs)
    portal.close()
    diffs._queue.thread = threading.get_ident()  # as the system may assign it again
    assert list(diffs) == []


def test_dropped_watch_is_closed(portal: adsum.Portal) -> None:
    watch = portal.watch("room", timeout=0.1)
    assert eventually(partial(read_diff, watch))
    with pytest.raises(TimeoutError):
        next(watch)
    inner = watch._inner
    del watch
    eventually(lambda: inner.closed, "the inner watch is closed")


def test_failed_start_raises_at_the_call_and_a_later_one_tries_again(short_path: Any) -> None:
    address = short_path / "folder" / "node.sock"
    node = adsum.Node(siblings=False, listen=f"unix:{address}")
    with adsum.Portal(node) as portal:
        with pytest.raises(adsum.ListenError):
            portal.list("room")
        address.parent.mkdir()
        assert portal.list("room") == {}


def test_running_node_is_used_in_its_loop_and_not_stopped() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        presence, portal = adsum.Presence(node), adsum.Portal(node)
        async with node:
            presence.track("room", "ann", owner=None)
            await asyncio.to_thread(portal.track, "room", "bob")
            assert list(presence.list("room")) == ["ann", "bob"]
            with pytest.raises(adsum.UsageError, match="would wait for itself"):
                portal.count("room")
            watch = await asyncio.to_thread(portal.watch, "room")
            await asyncio.to_thread(portal.close)
            assert node.running
            assert watch.closed
            assert list(presence.list("room")) == ["ann"]

    asyncio.run(main())


def test_end_of_a_running_node_ends_calls_and_its_restart_is_used() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        portal = adsum.Portal(node)
        async with node:
            waiting = asyncio.create_task(asyncio.to_thread(portal.call, asyncio.Event().wait))
            messages = await asyncio.to_thread(portal.subscribe, "room")
            reading = asyncio.create_task(asyncio.to_thread(list, messages))
            while messages._pending is None:  # noqa: ASYNC110  # set in another thread
                await asyncio.sleep(0.001)
        with pytest.raises(adsum.NodeNotRunningError):
            await waiting
        assert await reading == []
        with pytest.raises(adsum.NodeNotRunningError):
            await asyncio.to_thread(portal.count, "room")
        async with node:
            assert await asyncio.to_thread(portal.count, "room") == 0

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_program_that_ends_without_stop_ends_calls_under_way() -> None:
    node, begun = adsum.Node(siblings=False), threading.Event()
    portal = adsum.Portal(node)

    async def forever() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def main() -> "tuple[threading.Thread, list[Any]]":
        await node.start()
        started = in_thread_soon(lambda: portal.call(forever))
        await asyncio.to_thread(begun.wait, 30)
        return started

    thread, results = asyncio.run(main())
    thread.join(30)
    assert isinstance(results[0], adsum.NodeNotRunningError)
    asyncio.run(node.stop())
    gc.collect()  # asyncio warns of the tasks of the closed loop


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_loop_closed_without_stop_ends_waiting_calls() -> None:
    loop, node = asyncio.new_event_loop(), adsum.Node(siblings=False)
    loop.run_until_complete(node.start())
    portal = adsum.Portal(node)
    thread, results = in_thread_soon(lambda: portal.count("room"))  # the loop does not run
    eventually(lambda: is_queued(portal), "the call is queued")
    loop.close()
    thread.join(30)
    assert isinstance(results[0], adsum.NodeNotRunningError)
    asyncio.run(node.stop())
    del loop
    gc.collect()  # asyncio warns of the tasks of the closed loop


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_loop_closed_without_stop_ends_acalls() -> None:
    loop, node = asyncio.new_event_loop(), adsum.Node(siblings=False)
    loop.run_until_complete(node.start())
    portal = adsum.Portal(node)

    async def main(loop: asyncio.AbstractEventLoop) -> None:
        calling = asyncio.create_task(portal.acall(len, "room"))  # the loop does not run
        await until(lambda: is_queued(portal), "the call is queued")
        loop.close()
        await calling

    thread, results = in_thread_soon(partial(asyncio.run, main(loop)))
    thread.join(60)
    assert isinstance(results[0], adsum.NodeNotRunningError)
    asyncio.run(node.stop())
    del loop
    gc.collect()  # asyncio warns of the tasks of the closed loop


def observers(node: adsum.Node) -> int:
    return len(node._observers)


def test_portal_closed_before_its_first_use_observes_no_longer() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        before = observers(node)
        async with node:
            unused = adsum.Portal(node)
            await asyncio.to_thread(unused.close)
            assert observers(node) == before
            adsum.Portal(node).close()  # in the thread of the loop
            assert observers(node) == before

    asyncio.run(main())


def test_portal_closed_without_its_node_observes_no_longer() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        before = observers(node)
        stopped, restarted = adsum.Portal(node), adsum.Portal(node)
        async with node:
            await asyncio.to_thread(stopped.track, "room", "ann")
            await asyncio.to_thread(restarted.track, "room", "bob")
        stopped.close()
        async with node:
            with pytest.raises(adsum.UsageError, match="would wait for itself"):
                restarted.close()
            await asyncio.to_thread(restarted.close)
            assert observers(node) == before

    asyncio.run(main())


def test_closed_portals_of_a_node_of_their_own_leave_no_observers() -> None:
    node = adsum.Node(siblings=False)
    before = observers(node)
    for _ in range(3):
        with adsum.Portal(node) as portal:
            portal.track("room", "ann")
            assert portal.count("room") == 1
        assert observers(node) == before


def test_celery_worker_says_goodbye_if_celery_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    connected: list[Any] = []
    signal = types.SimpleNamespace(connect=lambda function, weak: connected.append(function))
    module = types.ModuleType("celery.signals")
    module.worker_process_shutdown = signal  # type: ignore[attr-defined]  # a fake module
    monkeypatch.setitem(sys.modules, "celery.signals", module)
    portal = adsum.Portal(adsum.Node(siblings=False))
    portal.count("room")
    assert connected == [close_all]
    connected[0](sender=None, pid=1, exitcode=0)
    assert not portal.node.running


def test_call_before_the_start_has_ended_waits_for_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts links and never answers
        peer = f"127.0.0.1:{silent.getsockname()[1]}"
        node = adsum.Node(siblings=False, peers=peer, secret="s" * 16, join_timeout=0.5)
        with adsum.Portal(node, timeout=0.05) as portal:
            with pytest.raises(TimeoutError):
                portal.list("room")
            portal._connection.timeout = 30.0
            assert portal.list("room") == {}
