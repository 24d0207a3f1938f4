"""Clients of the sites that examples serve: HTTP, long polling, one client on each worker."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import pytest
from websockets.exceptions import InvalidStatus

from tests.support.waiting import DEADLINE, until

from .channel_client import ChannelClient
from .example_processes import WORKERS


@asynccontextmanager
async def website(
    port: int, path: str, right: Callable[[Any], bool] | None = None
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client for a server, once that gives the right answer; it asks any worker."""
    url, limits = f"http://127.0.0.1:{port}", httpx2.Limits(max_keepalive_connections=0)
    async with httpx2.AsyncClient(base_url=url, trust_env=False, limits=limits) as web:

        async def answers() -> bool:
            try:
                answer = await web.get(path)
            except httpx2.TransportError:  # not up yet
                return False
            return answer.is_success and (right is None or right(answer.json()))

        await until(answers)
        yield web


class Poller:
    """A client that polls, each request over a connection of its own."""

    def __init__(self, web: httpx2.AsyncClient, params: dict[str, str]) -> None:
        self._web = web
        self._params = {**params, "vsn": "2.0.0"}
        self._frames: list[list[Any]] = []

    async def begin(self) -> None:
        """Get a session."""
        assert await self._poll() == 410

    async def send(self, frame: list[Any]) -> None:
        """Send a frame."""
        body = json.dumps(frame)
        answer = await self._web.post("/socket/longpoll", params=self._params, content=body)
        assert answer.json()["status"] == 200

    async def expect(self, event: str, *, within: float = DEADLINE) -> dict[str, Any]:
        """The payload of the next such event."""
        async with asyncio.timeout(within):
            while not any(frame[3] == event for frame in self._frames):
                assert await self._poll() in (200, 204)
        found = next(frame for frame in self._frames if frame[3] == event)
        self._frames.remove(found)
        return dict(found[4])

    async def go_while_waiting(self) -> None:
        """Break off a request that waits at the server, and ask no more.

        Of two requests that wait the older one is answered, so the other one is known to wait.
        """
        asking = {asyncio.create_task(self._poll()) for _ in range(2)}
        async with asyncio.timeout(DEADLINE):
            _, waiting = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        assert len(waiting) == 1
        for one in waiting:
            one.cancel()
        await asyncio.wait(waiting)

    async def _poll(self) -> int:
        answer = (await self._web.get("/socket/longpoll", params=self._params)).json()
        self._params["token"] = answer["token"]
        self._frames += map(json.loads, answer["messages"])
        return int(answer["status"])


@asynccontextmanager
async def on_all_workers(
    connect: Callable[[], Any], topic: str
) -> AsyncIterator[list[ChannelClient]]:
    """A tab on each worker; whom a joined channel is served by, it says as `worker`."""
    async with AsyncExitStack() as stack:
        found: dict[int, ChannelClient] = {}
        async with asyncio.timeout(DEADLINE):
            while len(found) < WORKERS:
                async with AsyncExitStack() as attempt:
                    one: ChannelClient = await attempt.enter_async_context(connect())
                    worker = (await one.join(topic))["worker"]
                    if worker not in found:
                        found[worker] = one
                        stack.push_async_callback(attempt.pop_all().aclose)
        yield list(found.values())


async def status_of(attempt: Any) -> int:
    """The HTTP status with which a connection is refused."""
    with pytest.raises(InvalidStatus) as refusal:
        await attempt.__aenter__()
    return int(refusal.value.response.status_code)


async def code_of_end(one: ChannelClient) -> int | None:
    """The code with which the server ends a connection."""
    async with asyncio.timeout(DEADLINE):
        await one.connection.wait_closed()
    return one.connection.close_code


async def django_cookie(port: int, user: str) -> dict[str, str]:
    """What the browser of somebody who has signed in sends."""
    async with website(port, "/") as web:
        assert "Sign in" in (await web.get("/")).text
        headers = {"x-csrftoken": web.cookies["csrftoken"]}
        signed_in = await web.post("/sign-in", data={"user": user}, headers=headers)
        assert signed_in.status_code == 302
        assert "Channels in Django" in (await web.get("/")).text
        return {"cookie": "; ".join(f"{name}={value}" for name, value in web.cookies.items())}
