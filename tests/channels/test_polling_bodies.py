"""Answers that no cache may store, and bodies that are slow, too large or cut off."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config as HypercornConfig
from starlette.applications import Starlette
from starlette.routing import Mount

from adsum.channels import Limits
from adsum.channels.carriers import longpoll
from tests.support.ports import free_port
from tests.support.waiting import until

from .captured_log import Log
from .heartbeat import BEAT
from .http_poller import HttpPoller, http_poller, unasked_http_poller
from .leak_check import others, run
from .served_app import ServedApp, served_app, two_served_apps

Answer = tuple[int, dict[str, str], bytes]


async def ask(
    made: ServedApp,
    method: str = "GET",
    path: str = "/longpoll",
    query: str = "vsn=2.0.0",
    headers: dict[str, str] | None = None,
    body: bytes = b"",
) -> Answer:
    """One request without a server."""
    sent: list[Any] = []
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if not messages:
            await asyncio.get_running_loop().create_future()
        return messages.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    named = {"host": "testserver", **(headers or {})}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        "client": ("testclient", 0),
    }
    await made.socket(scope, receive, send)
    shown = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], shown, sent[1]["body"]


async def answers(
    made: ServedApp, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[int, Answer]]:
    """Every kind of answer, each with the HTTP status that it must have."""
    begun = await ask(made)
    yield 200, begun
    query = f"vsn=2.0.0&token={json.loads(begun[2])['token']}"
    beat = BEAT.encode()
    yield 200, await ask(made, "POST", query=query, body=beat)
    yield 200, await ask(made, query=query)
    yield 413, await ask(made, "POST", query=query, body=b"x" * 2_000_000)
    yield 413, await ask(made, "POST", query=query, headers={"content-length": "9" * 30})
    yield 400, await ask(made, "POST", query=query, body=b"\xff")
    yield 200, await ask(made, "POST", query=query + "x", body=beat)
    yield 200, await ask(made, "OPTIONS", headers={"origin": "http://testserver"})
    yield 400, await ask(made, "PUT")
    yield 400, await ask(made, "HEAD")
    yield 403, await ask(made, headers={"origin": "https://evil.example"})
    yield 403, await ask(made, query="vsn=3.0.0")
    yield 403, await ask(made, query="vsn=2.0.0&" + "&".join(f"p{n}=" for n in range(200)))
    yield 403, await ask(made, query="vsn=2.0.0&refused=1")
    yield 403, await ask(made, query="vsn=2.0.0&crash=1")
    yield 200, await ask(made)
    yield 503, await ask(made)  # the third connection
    yield 404, await ask(made, path="/nowhere")
    yield 426, await ask(made, path="/websocket")

    def crash(*_: Any) -> None:
        raise RuntimeError("it crashes")

    monkeypatch.setattr(longpoll.LongPoll, "_respond", crash)
    yield 500, await ask(made)


def test_longpoll_answers_forbid_caching(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        made = ServedApp(limits=Limits(connections=2))
        async with made.node:
            async for status, (found, headers, _) in answers(made, monkeypatch):
                assert (found, headers.get("cache-control")) == (status, "no-store")

    run(main())


@contextmanager
def caching_proxy(directory: Path, port: int) -> Iterator[int]:
    """Debian's nginx, which stores whatever it may; yields its port."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("needs nginx")
    own = free_port()
    config = directory / "nginx.conf"
    config.write_text(f"""
        user root;  # ignored for others, who own the directory
        daemon off; pid {directory}/pid; error_log stderr; worker_processes 1;
        events {{}}
        http {{
            access_log off;
            client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
            fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u;
            scgi_temp_path {directory}/s;
            proxy_cache_path {directory}/cache keys_zone=zone:1m;
            server {{
                listen 127.0.0.1:{own};
                location / {{
                    proxy_pass http://127.0.0.1:{port};
                    proxy_cache zone; proxy_cache_valid any 10m;
                    add_header x-cache $upstream_cache_status;
                }}
            }}
        }}""")
    process = subprocess.Popen(
        [program, "-e", "stderr", "-c", str(config)], stderr=subprocess.DEVNULL
    )
    try:
        yield own
    finally:
        process.terminate()
        process.wait(10)


async def answers_at(port: int) -> bool:
    try:
        async with httpx2.AsyncClient(trust_env=False) as http:
            return (await http.options(f"http://127.0.0.1:{port}/socket/longpoll")).is_success
    except httpx2.TransportError:
        return False


def test_longpoll_clients_behind_a_caching_proxy_get_separate_sessions(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            served_app() as made,
            unasked_http_poller(made) as ann,
            unasked_http_poller(made) as bob,
        ):
            with caching_proxy(tmp_path, made.port) as port:
                deadline = asyncio.get_running_loop().time() + 10
                while not await answers_at(port):
                    assert asyncio.get_running_loop().time() < deadline
                    await asyncio.sleep(0.02)
                proxied = ServedApp.__new__(ServedApp)
                proxied.port = port
                ann.app = bob.app = proxied
                await ann.begin()
                await bob.begin()
                assert ann.token != bob.token
                await ann.join("room:1")
                await bob.join("room:1")
                for client in ann, bob:
                    client.app = made
            assert made.socket.stats()["connections"] == 2

    run(main())


class Trickle:
    """A POST whose body comes piece by piece, as the test says."""

    def __init__(self, made: ServedApp, client: HttpPoller) -> None:
        self.pieces: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.reading = asyncio.Event()
        self.sent: list[Any] = []
        query = f"vsn=2.0.0&token={client.token}".encode()
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/longpoll",
            "query_string": query,
            "headers": [(b"host", b"testserver")],
            "client": ("testclient", 0),
        }
        self.task = asyncio.create_task(made.socket(scope, self._receive, self._send))

    async def status(self) -> tuple[int, int]:
        """The status of HTTP, and that in the answer."""
        await self.task
        return self.sent[0]["status"], json.loads(self.sent[1]["body"])["status"]

    async def _receive(self) -> Any:
        self.reading.set()
        return await self.pieces.get()

    async def _send(self, message: Any) -> None:
        self.sent.append(message)


def piece(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_slow_longpoll_body_is_refused_after_a_timeout(
    monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    monkeypatch.setattr(longpoll, "BODY_PATIENCE", 0.2)

    async def main() -> None:
        async with served_app() as made, http_poller(made) as ann:
            slow = Trickle(made, ann)
            while not slow.task.done():
                slow.pieces.put_nowait(piece(b"x"))
                await asyncio.sleep(0.01)
            assert await slow.status() == (408, 408)
            assert len(log.lines) == 1
            assert await ann.post(BEAT) == {"status": 200}

    run(main())


def test_oversized_longpoll_body_is_not_read_on(log: Log) -> None:
    async def main() -> None:
        async with served_app(limits=Limits(frame_size=1000)) as made, http_poller(made) as ann:
            large = Trickle(made, ann)
            for _ in range(17):
                large.pieces.put_nowait(piece(b"x" * 1000))
            assert await large.status() == (413, 413)
            assert len(log.lines) == 1

    run(main())


def test_truncated_longpoll_body_logs_nothing(log: Log) -> None:
    async def main() -> None:
        async with served_app() as made, http_poller(made) as ann:
            cut = Trickle(made, ann)
            cut.pieces.put_nowait(piece(BEAT.encode()))
            cut.pieces.put_nowait({"type": "http.disconnect"})
            await cut.task
            assert log.lines == []
            assert await ann.post(BEAT) == {"status": 200}

    run(main())


@pytest.mark.parametrize("where", ["at its worker", "at another one"])
def test_longpoll_session_reads_one_body_at_a_time(where: str, cluster_name: str) -> None:
    async def main() -> None:
        async with two_served_apps(cluster_name) as (one, two), http_poller(one) as ann:
            at = one if where == "at its worker" else two
            first = Trickle(at, ann)
            await first.reading.wait()
            second = Trickle(at, ann)
            assert await second.status() == (200, 409)
            assert not second.reading.is_set()
            first.pieces.put_nowait(piece(BEAT.encode(), more=False))
            assert await first.status() == (200, 200)
            third = Trickle(at, ann)
            third.pieces.put_nowait(piece(BEAT.encode(), more=False))
            assert await third.status() == (200, 200)
            await until(lambda: one.socket.stats()["received_frames_total"] == 2)

    run(main())


def test_longpoll_body_too_large_to_relay_is_refused(
    cluster_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsum.channels.carriers.noderequests.MAX_QUESTION", 10_000)

    async def main() -> None:
        async with two_served_apps(cluster_name) as (one, two), http_poller(one) as ann:
            ann.app = two
            assert await ann.post("x" * 10_000) == {"status": 413}
            assert await ann.post(BEAT) == {"status": 200}

    run(main())


def test_hypercorn_ends_requests_whose_bodies_are_refused() -> None:
    """It queues ten pieces of a body, and waits for a reader before it ends the connection."""
    body = b"x" * 1_000_000
    refused = [
        ("POST", "/longpoll?vsn=2.0.0", 200),
        ("PUT", "/longpoll?vsn=2.0.0", 400),
        ("POST", "/nowhere", 404),
        ("POST", "/websocket", 426),
    ]

    async def main() -> None:
        made, ending = ServedApp(), asyncio.Event()
        port, config = free_port(), HypercornConfig()
        config.keep_alive_timeout = 0.1
        config.bind = [f"127.0.0.1:{port}"]
        async with made.node:
            app = Starlette(routes=[Mount("/socket", made.socket)])

            async def late(scope: Any, receive: Any, send: Any) -> None:
                """The queue is full when the answer comes."""
                if scope["type"] == "http" and scope["method"] != "OPTIONS":
                    await asyncio.sleep(0.1)
                await app(scope, receive, send)

            asked: Any = late
            serving = asyncio.create_task(
                hypercorn_serve(asked, config, shutdown_trigger=ending.wait, mode="asgi")
            )
            await until(partial(answers_at, port))
            for method, path, status in refused:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                head = f"{method} /socket{path} HTTP/1.1\r\nhost: localhost\r\n"
                writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
                assert f" {status} ".encode() in await reader.readline(), path
                writer.close()
            await until(lambda: not any("tcp_server" in task for task in others()), "a leak")
            ending.set()
            await serving

    run(main())
