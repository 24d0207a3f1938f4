"""A long-polling client, request by request, over real HTTP."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from tests.support.waiting import DEADLINE

from .served_app import ServedApp


class HttpPoller:
    """One client; `token` is what it was told last, and goes with each request.

    Args:
        http: What carries the requests.
        app: Where they go; a test may send each elsewhere.
        query: What the client puts into its URL.
    """

    def __init__(self, http: httpx2.AsyncClient, served_app: ServedApp, query: str) -> None:
        self.http = http
        self.app = served_app
        self.query = query
        self.token: str | None = None

    def url(self, token: str | None = None, path: str = "/socket/longpoll") -> str:
        """Where a request goes."""
        token = self.token if token is None else token
        after = f"&token={token}" if token else ""
        return f"http://127.0.0.1:{self.app.port}{path}?{self.query}{after}"

    async def get(self, token: str | None = None, **headers: str) -> dict[str, Any]:
        """Ask once; the answer as it is. A new token is kept."""
        answer = await self.http.get(self.url(token), headers=headers)
        said: dict[str, Any] = answer.json()
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        self.token = said.get("token") or self.token
        return said

    async def post(
        self, *lines: str | bytes, token: str | None = None, kind: str = "application/x-ndjson"
    ) -> dict[str, Any]:
        """Send a batch; the answer as it is."""
        body = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)
        answer = await self.http.post(self.url(token), content=body, headers={"content-type": kind})
        said: dict[str, Any] = answer.json()
        return said

    async def begin(self) -> None:
        """Get a session."""
        said = await self.get()
        assert (said["status"], said["messages"]) == (410, [])

    async def frames(self, count: int) -> list[str]:
        """The next frames, in as many answers as they take."""
        found: list[str] = []
        while len(found) < count:
            said = await self.get()
            assert said["status"] in (200, 204), said
            found += said["messages"]
        assert len(found) == count, found
        return found

    async def receives(self, *frames: str) -> None:
        """The next frames are exactly these."""
        assert await self.frames(len(frames)) == list(frames)

    async def join(self, topic: str, payload: Any = None, ref: str = "3") -> None:
        """Join, and read the reply."""
        frame = json.dumps([ref, ref, topic, "phx_join", payload or {}])
        assert await self.post(frame) == {"status": 200}
        response = '{"status":"ok","response":{}}'
        await self.receives(f'["{ref}","{ref}","{topic}","phx_reply",{response}]')


@asynccontextmanager
async def http_poller(served_app: ServedApp, query: str = "vsn=2.0.0") -> AsyncIterator[HttpPoller]:
    """A client that has a session."""
    async with unasked_http_poller(served_app, query) as client:
        await client.begin()
        yield client


@asynccontextmanager
async def unasked_http_poller(
    served_app: ServedApp, query: str = "vsn=2.0.0"
) -> AsyncIterator[HttpPoller]:
    """A client that has not asked yet."""
    async with httpx2.AsyncClient(verify=False, trust_env=False, timeout=2 * DEADLINE) as http:
        yield HttpPoller(http, served_app, query)
