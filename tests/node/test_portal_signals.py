"""The portal: a signal handler may interrupt a call at any step, and call as well or raise."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import adsum
from adsum.portal import portalconnection


@pytest.fixture
def portal() -> Iterator[adsum.Portal]:
    with adsum.Portal(adsum.Node(siblings=False), timeout=5.0) as portal:
        portal.count("room")
        yield portal


class InterruptedLoop:
    """An event loop, except that a signal handler runs before it is woken once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, handler: Callable[[], object]) -> None:
        self._loop = loop
        self._handlers = [handler]

    def call_soon_threadsafe(self, call: Callable[[], None]) -> None:
        while self._handlers:
            self._handlers.pop()()
        self._loop.call_soon_threadsafe(call)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


def interrupt_next_call(portal: adsum.Portal, handler: Callable[[], object]) -> None:
    """Run a handler in the next call, before it wakes the event loop."""
    queue: Any = portal._connection._queue
    queue.loop = InterruptedLoop(queue.loop, handler)


def test_handler_may_call_before_the_interrupted_call_wakes_the_loop(portal: adsum.Portal) -> None:
    counts = []
    interrupt_next_call(portal, lambda: counts.append(portal.count("room")))
    assert portal.count("room") == 0
    assert counts == [0]


def test_call_after_one_that_a_signal_ended_is_answered(portal: adsum.Portal) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    interrupt_next_call(portal, interrupt)
    with pytest.raises(KeyboardInterrupt):
        portal.track("room", "ann", owner=None)
    assert portal.count("room") in (0, 1)


def send_signals(receiver: int, count: int, handled: threading.Semaphore) -> None:
    """Send a thread so many signals, each once the last one was handled."""
    for _ in range(count):
        signal.pthread_kill(receiver, signal.SIGUSR1)
        if not handled.acquire(timeout=10):
            return


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals to a thread")
def test_handlers_that_call_block_neither_the_loop_nor_the_interrupted_call(
    portal: adsum.Portal,
) -> None:
    received, handled = [], threading.Semaphore(0)

    def handle(number: int, frame: object) -> None:
        received.append(portal.count("room"))
        handled.release()

    before = signal.signal(signal.SIGUSR1, handle)
    sender = threading.Thread(target=send_signals, args=(threading.get_ident(), 3000, handled))
    sender.start()
    try:
        while sender.is_alive():
            assert portal.count("room") == 0
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, before)
    assert received == [0] * 3000


def use_first(portal: adsum.Portal) -> list[object]:
    """The result or the error of the first use, in a thread that may hang."""
    results: list[object] = []

    def use() -> None:
        try:
            results.append(portal.count("room"))
        except adsum.AdsumError as error:
            results.append(error)

    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    thread.join(10)
    return results


def interrupt_first_use(monkeypatch: pytest.MonkeyPatch, handler: Callable[[], object]) -> None:
    """Run a handler once, at the step at which the first use starts the node."""
    handlers = [handler]

    def interrupted(_: Callable[..., None]) -> None:
        while handlers:
            handlers.pop()()

    monkeypatch.setattr(portalconnection, "call_at_exit", interrupted)


def test_handler_may_close_the_portal_during_its_first_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    portal = adsum.Portal(adsum.Node(siblings=False), timeout=5.0)
    interrupt_first_use(monkeypatch, portal.close)
    [error] = use_first(portal)
    assert isinstance(error, adsum.NodeNotRunningError)
    portal.close()
    assert not portal.node.running


def test_handler_that_calls_during_the_first_use_starts_the_node_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    portal = adsum.Portal(adsum.Node(siblings=False), timeout=5.0)
    interrupt_first_use(monkeypatch, lambda: portal.track("room", "ann", owner=None))
    assert use_first(portal) == [1]
    portal.close()
    assert not portal.node.running
