"""Applications that `Node.wrap_app` wraps: servers with and without lifespan, and failures."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

import adsum
from adsum.startingapp import StartingApp
from tests.support.waiting import DEADLINE

HTTP = {"type": "http"}


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """An application that has no lifespan, as those of Django."""
    if scope["type"] == "lifespan":
        raise ValueError("only HTTP")
    await send(scope["type"])


async def silent(scope: Any, receive: Any, send: Any) -> None:
    """An application that returns from a lifespan at once."""
    if scope["type"] != "lifespan":
        await send(scope["type"])


async def nothing() -> Any:
    raise AssertionError("nothing is received")


class Sent(list[Any]):
    """The messages that an application sends."""

    async def __call__(self, message: Any) -> None:
        self.append(message)


async def ask(app: Any, kind: str = "http") -> list[Any]:
    """The messages with which an application answers one request."""
    sent = Sent()
    await app({"type": kind}, nothing, sent)
    return sent


@pytest.fixture
def node() -> adsum.Node:
    return adsum.Node(siblings=False)


def failing(folder: Path) -> adsum.Node:
    """A node that cannot be started before a folder exists."""
    return adsum.Node(siblings=False, listen=f"unix:{folder}/node.sock")


def test_first_requests_share_one_start(node: adsum.Node) -> None:
    names: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        names.append(node.name)

    async def main() -> None:
        wrapped = node.wrap_app(app)
        await asyncio.gather(*[wrapped(HTTP, nothing, nothing) for _ in range(5)])
        await wrapped({"type": "websocket"}, nothing, nothing)
        await node.stop()

    asyncio.run(main())
    assert len(names) == 6
    assert len(set(names)) == 1


def test_start_goes_on_if_the_first_request_is_cancelled(node: adsum.Node) -> None:
    async def main() -> None:
        wrapped = node.wrap_app(bare)
        first, second = (asyncio.create_task(ask(wrapped)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == ["http"]
        assert first.cancelled()
        assert node.running
        await node.stop()

    asyncio.run(main())


def test_failed_start_is_answered_and_the_next_request_tries_again(
    short_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = short_path / "folder"
    node = failing(folder)

    async def main() -> None:
        wrapped = node.wrap_app(bare)
        answers = await asyncio.gather(*[ask(wrapped) for _ in range(3)])
        assert [start["status"] for start, _ in answers] == [503] * 3
        assert await ask(wrapped, "websocket") == [{"type": "websocket.close", "code": 1013}]
        folder.mkdir()
        assert await ask(wrapped) == ["http"]
        await node.stop()

    with caplog.at_level(logging.ERROR, "adsum.node"):
        asyncio.run(main())
    lines = [record.getMessage() for record in caplog.records]
    assert sum("a request was refused" in line for line in lines) == 1
    assert "node.sock" in lines[0]


def test_each_event_loop_starts_its_own_run(node: adsum.Node) -> None:
    wrapped = node.wrap_app(bare)

    async def main() -> None:
        assert await ask(wrapped) == ["http"]
        await node.stop()

    asyncio.run(main())
    asyncio.run(main())


def test_other_scopes_are_passed_on_without_a_start(node: adsum.Node) -> None:
    assert asyncio.run(ask(node.wrap_app(bare), "other")) == ["other"]
    assert not node.running


@pytest.mark.parametrize("app", [bare, silent])
def test_application_without_lifespan_is_served_within_that_of_the_node(
    node: adsum.Node, app: Any
) -> None:
    async def main() -> None:
        events: asyncio.Queue[Any] = asyncio.Queue()
        sent: asyncio.Queue[Any] = asyncio.Queue()
        wrapped = node.wrap_app(app)
        task = asyncio.create_task(wrapped({"type": "lifespan"}, events.get, sent.put))
        await events.put({"type": "lifespan.startup"})
        assert await sent.get() == {"type": "lifespan.startup.complete"}
        assert node.running
        assert await ask(wrapped) == ["http"]
        await events.put({"type": "lifespan.shutdown"})
        assert await sent.get() == {"type": "lifespan.shutdown.complete"}
        assert not node.running
        await task
        assert await ask(wrapped) == ["http"]
        assert not node.running  # the server has ended the lifespan

    asyncio.run(main())


def test_lifespan_of_the_application_runs_within_that_of_the_node(node: adsum.Node) -> None:
    states: list[tuple[bool, bool]] = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, int]]:
        states.append((node.running, node.stopping))
        yield {"answer": 42}
        states.append((node.running, node.stopping))

    async def answer(request: Request) -> JSONResponse:
        return JSONResponse(request.state.answer)

    async def greet(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    routes = [Route("/", answer), WebSocketRoute("/socket", greet)]
    with TestClient(node.wrap_app(Starlette(routes=routes, lifespan=lifespan))) as client:
        assert client.get("/").json() == 42
        with client.websocket_connect("/socket"):
            assert node.running
    assert states == [(True, False), (True, True)]
    assert not node.running


def test_lifespan_that_runs_the_node_itself_is_not_disturbed(node: adsum.Node) -> None:
    with TestClient(node.wrap_app(Starlette(lifespan=node.lifespan))):
        assert node.running
    assert not node.running


def test_lifespan_that_fails_stops_the_node(node: adsum.Node) -> None:
    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        raise KeyError("no pool")
        yield

    with (
        pytest.raises(KeyError, match="no pool"),
        TestClient(node.wrap_app(Starlette(lifespan=lifespan))),
    ):
        raise AssertionError("the server does not start")
    assert not node.running


@pytest.mark.parametrize("answers", [0, 1], ids=["before startup", "after startup"])
def test_requests_start_the_node_after_a_lifespan_that_raised(
    node: adsum.Node, answers: int
) -> None:
    """ASGI lets the server go on without a lifespan then, and uvicorn does."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await send(node.running)
            return
        await receive()
        for _ in range(answers):
            await send({"type": "lifespan.startup.complete"})
        raise KeyError("no pool")

    async def startup() -> Any:
        return {"type": "lifespan.startup"}

    async def main() -> None:
        wrapped = node.wrap_app(app)
        with pytest.raises(KeyError, match="no pool"):
            await wrapped({"type": "lifespan"}, startup, Sent())
        assert not node.running
        assert await ask(wrapped) == [True]
        await node.stop()

    asyncio.run(main())


def test_requests_start_no_node_after_a_shutdown_that_raised(node: adsum.Node) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await send(node.running)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise KeyError("no pool")

    async def main() -> None:
        messages = iter(["lifespan.startup", "lifespan.shutdown"])

        async def receive() -> Any:
            return {"type": next(messages)}

        wrapped = node.wrap_app(app)
        with pytest.raises(KeyError, match="no pool"):
            await wrapped({"type": "lifespan"}, receive, Sent())
        assert await ask(wrapped) == [False]

    asyncio.run(main())


def test_failed_start_in_a_lifespan_is_reported_to_the_server(short_path: Path) -> None:
    async def startup() -> Any:
        return {"type": "lifespan.startup"}

    async def main() -> None:
        sent = Sent()
        node = failing(short_path / "folder")
        await node.wrap_app(bare)({"type": "lifespan"}, startup, sent)
        assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
        assert "node.sock" in sent[0]["message"]

    asyncio.run(main())


def test_end_of_the_process_stops_the_node_in_an_idle_loop(node: adsum.Node) -> None:
    wrapped = StartingApp(bare, node)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(ask(wrapped))
    assert node.running
    wrapped._stop_at_exit()
    assert not node.running
    wrapped._stop_at_exit()
    loop.close()


def test_end_of_the_process_stops_the_node_in_the_loop_of_a_daemon_thread(
    node: adsum.Node,
) -> None:
    wrapped = StartingApp(bare, node)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(ask(wrapped), loop).result(DEADLINE)
    wrapped._stop_at_exit()
    assert not node.running
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
