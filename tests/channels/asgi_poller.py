"""A long-polling client of an ASGI application, without a server; its requests may be cut off."""

import asyncio
import json
from typing import Any

from adsum.channels import Socket


class AsgiPoller:
    """One client; `token` is what it was told last, and goes with each request.

    Args:
        socket: Where its requests go; a test may send each elsewhere.
    """

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self.token = ""

    async def begin(self) -> None:
        """Get a session."""
        assert (await self.get())["status"] == 410

    async def get(self, gone: asyncio.Event | None = None) -> dict[str, Any]:
        """Ask once; `gone` is set when the connection of the request ends."""
        said = await self._request("GET", b"", gone or asyncio.Event())
        self.token = said["token"] or self.token
        return said

    async def post(self, *frames: list[Any]) -> int:
        """Send some frames; returns the status in the answer."""
        body = "\n".join(map(json.dumps, frames)).encode()
        said = await self._request("POST", body, asyncio.Event())
        return int(said["status"])

    async def _request(self, method: str, body: bytes, gone: asyncio.Event) -> dict[str, Any]:
        scope = {
            "type": "http",
            "method": method,
            "path": "/socket/longpoll",
            "query_string": f"vsn=2.0.0&token={self.token}".encode(),
            "headers": [(b"host", b"testserver"), (b"content-type", b"application/x-ndjson")],
            "client": ("testclient", 0),
        }
        to_server = [{"type": "http.request", "body": body, "more_body": False}]
        from_server: list[Any] = []

        async def receive() -> dict[str, Any]:
            if to_server:
                return to_server.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            from_server.append(message)

        await self.socket(scope, receive, send)
        said: dict[str, Any] = json.loads(from_server[1]["body"])
        return said
