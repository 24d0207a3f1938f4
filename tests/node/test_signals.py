"""A node notices the signal that asks its process to stop, and leaves it to the server."""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import adsum
from adsum.driver import socketdriver
from tests.support.nodes import run
from tests.support.waiting import until

Received = list[int]


@pytest.fixture(autouse=True)
def _as_in_the_foreground() -> Iterator[None]:
    """A shell lets its background processes, and these their children, ignore SIGINT."""
    with handling(signal.SIGINT, signal.default_int_handler):
        yield


@pytest.fixture
def received() -> Iterator[Received]:
    """The signals that a server received: it has installed its handlers as uvicorn does."""
    numbers: Received = []

    def handle(number: int, frame: Any) -> None:
        numbers.append(number)

    with handling(signal.SIGTERM, handle), handling(signal.SIGINT, handle):
        yield numbers


@contextlib.contextmanager
def handling(number: signal.Signals, handler: Any) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def lingering_node() -> adsum.Node:
    return adsum.Node(siblings=False, linger=30.0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_stop_reaches_the_server_and_begins_the_stop(
    received: Received, number: signal.Signals
) -> None:
    async def main() -> None:
        node = lingering_node()
        presence = adsum.Presence(node)
        async with node:
            with presence.track("room", "ann"):
                assert not node.stopping
                os.kill(os.getpid(), number)
                await until(lambda: node.stopping)
            assert received == [number]
            assert presence.count("room") == 1

    run(main())


def test_signal_reaches_a_server_that_handles_it_in_the_event_loop() -> None:
    async def main() -> None:
        asked = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
        async with lingering_node() as node:
            os.kill(os.getpid(), signal.SIGTERM)
            await asked.wait()
            assert node.stopping
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)

    with handling(signal.SIGTERM, signal.SIG_DFL):
        run(main())


def test_handler_of_the_server_is_restored_when_the_last_node_stops(received: Received) -> None:
    async def main() -> None:
        handler = signal.getsignal(signal.SIGTERM)
        first, second = lingering_node(), lingering_node()
        await first.start()
        await second.start()
        await first.stop()
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: second.stopping)
        await second.stop()
        assert signal.getsignal(signal.SIGTERM) is handler
        assert received == [signal.SIGTERM]

    run(main())


def test_library_finds_its_server_behind_the_handler_of_the_node() -> None:
    class Server:
        def handle_exit(self, number: int, frame: Any) -> None: ...

    async def main() -> None:
        async with lingering_node():
            handler: Any = signal.getsignal(signal.SIGTERM)
            assert handler != server.handle_exit
            assert handler.__self__ is server
            assert not hasattr(signal.getsignal(signal.SIGINT), "__self__")

    server = Server()
    with (
        handling(signal.SIGTERM, server.handle_exit),
        handling(signal.SIGINT, lambda number, frame: None),
    ):
        run(main())


def test_handler_that_was_installed_after_the_node_started_stays(received: Received) -> None:
    async def main() -> None:
        for _ in range(3):
            node = lingering_node()
            await node.start()
            inner = signal.getsignal(signal.SIGTERM)

            def outer(number: int, frame: Any, inner: Any = inner) -> None:
                inner(number, frame)

            signal.signal(signal.SIGTERM, outer)
            await node.stop()
            assert signal.getsignal(signal.SIGTERM) is outer
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: received)
        assert received == [signal.SIGTERM]

    run(main())


def test_server_that_starts_after_the_node_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socketdriver, "CHECK_INTERVAL", 0.01)
    numbers: Received = []

    def handle(number: int, frame: Any) -> None:
        numbers.append(number)

    async def main() -> None:
        async with lingering_node() as node:
            with handling(signal.SIGTERM, handle):
                await until(lambda: signal.getsignal(signal.SIGTERM) is not handle)
                os.kill(os.getpid(), signal.SIGTERM)
                await until(lambda: node.stopping)
                assert numbers == [signal.SIGTERM]

    with handling(signal.SIGTERM, signal.SIG_DFL):
        run(main())


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_signal_that_no_server_handles_is_left_alone(handler: signal.Handlers) -> None:
    async def main() -> None:
        async with lingering_node():
            assert signal.getsignal(signal.SIGTERM) is handler

    with handling(signal.SIGTERM, handler):
        run(main())


def test_keyboard_interrupt_is_left_alone() -> None:
    async def main() -> None:
        async with lingering_node():
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    with contextlib.closing(asyncio.new_event_loop()) as loop:
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        loop.run_until_complete(main())


def test_handler_of_asyncio_run_is_left_alone_and_the_cancelled_presence_lingers() -> None:
    ended = []

    async def main() -> None:
        handler = signal.getsignal(signal.SIGINT)
        node = lingering_node()
        presence = adsum.Presence(node)
        await node.start()
        assert signal.getsignal(signal.SIGINT) is handler
        try:
            with presence.track("room", "ann"):
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.sleep(60)
        finally:
            ended.append(presence.count("room"))
            await node.stop()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert ended == [1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_node_of_another_thread_leaves_signals_alone(received: Received) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    seen = []

    async def main() -> None:
        async with lingering_node():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run, args=[main()])
    thread.start()
    thread.join()
    assert seen == [handler]
