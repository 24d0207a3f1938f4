"""Clients that never read, against a real server: given up, and counted until their sockets end."""

import asyncio
import json
import socket as sockets

import pytest
from websockets.exceptions import InvalidStatus

from adsum.channels import Limits
from tests.support.waiting import until

from .app import App, connections
from .asgi_client import AsgiClient
from .captured_log import Log
from .leak_check import run
from .served_app import ServedApp, served_app
from .ws_client import ws_client

#: What each frame makes the server send.
TEXT = "x" * 16_000


class Unread:
    """A WebSocket client that sends and never reads."""

    def __init__(self, made: ServedApp) -> None:
        self._site = made
        self._sock = sockets.socket()
        self._sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        self._sock.setblocking(False)

    async def open(self) -> None:
        """Connect, and read the answer to that alone."""
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self._sock, ("127.0.0.1", self._site.port))
        lines = [
            "GET /socket/websocket?vsn=2.0.0 HTTP/1.1",
            f"Host: 127.0.0.1:{self._site.port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        ]
        await loop.sock_sendall(self._sock, "\r\n".join([*lines, "", ""]).encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += await loop.sock_recv(self._sock, 1)
        assert answer.startswith(b"HTTP/1.1 101 ")

    async def flood(self) -> None:
        """Send frames until the server takes no more for a while, or has been told enough."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._sock, _masked(["1", "1", "room:1", "phx_join", {}]))
        frame = _masked(["1", "1", "room:1", "echo", {"text": TEXT}])
        try:
            async with asyncio.timeout(1.0):
                for _ in range(1000):
                    await loop.sock_sendall(self._sock, frame)
        except TimeoutError:
            return

    def close(self) -> None:
        """Go away."""
        self._sock.close()


def _masked(frame: object) -> bytes:
    """A WebSocket frame of a client, whose mask is zero."""
    text = json.dumps(frame).encode()
    size = len(text)
    length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + size.to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + text


@pytest.mark.slow
@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
def test_slow_consumers_count_until_the_server_reports_their_disconnect(
    ws: str, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsum.channels.connection.GRACE", 0.2)

    async def main() -> None:
        limits = Limits(connections=3, outbox=200_000)
        async with served_app(limits=limits, timeout=1.0, ws=ws) as made:
            unread = [Unread(made) for _ in range(3)]
            for one in unread:
                await one.open()
            await asyncio.gather(*(one.flood() for one in unread))
            registry = made.socket._shared.registry
            await until(lambda: not registry.connections, "they are not given up")
            assert made.socket.stats()["connections"] == 3
            with pytest.raises(InvalidStatus, match="503"):
                await ws_client(made).__aenter__()
            assert len([line for line in log.lines if "does not read" in line]) >= 1
            for one in unread:
                one.close()
            await until(lambda: made.socket.stats()["connections"] == 0)
            async with ws_client(made) as ann:
                await ann.is_alive()

    run(main())


def test_server_stop_does_not_wait_for_an_abandoned_slow_consumer() -> None:
    async def main() -> None:
        app = App()
        async with app.node:
            ann = AsgiClient(app.socket)
            await ann.open()
            await ann.is_alive()
            (connection,) = connections(app.socket)
            ann.reads.clear()
            connection._give_up()
            async with asyncio.timeout(5.0):
                await ann.cancel()
            assert app.socket.stats()["connections"] == 0

    run(main())
