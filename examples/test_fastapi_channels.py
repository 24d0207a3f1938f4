"""Tests of `fastapi_channels.py`: browsers at two workers, which come, die and are cut off.

    pip install '..[demo]' fastapi pytest httpx2
    pytest test_fastapi_channels.py

No server runs and nothing sleeps. The fixture `cluster` comes with adsum, and what runs `async def`
tests comes with FastAPI (anyio). `settle` lets virtual time pass between the workers.
"""

import os
import secrets
import time
from collections.abc import AsyncIterator

import httpx2
import pytest

os.environ["APP_SECRET"] = secrets.token_urlsafe()

import fastapi_channels as application
from adsum.channels import Socket
from adsum.testing import Browser, Cluster, MakeCluster, RefusedByServerError

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """The event loop of the tests."""
    return "asyncio"


@pytest.fixture
async def workers(cluster: MakeCluster) -> AsyncIterator[Cluster]:
    """The application as one worker, and another one."""
    workers = cluster(1)
    workers.adopt(application.node)
    async with application.node:
        workers.settle()
        yield workers


@pytest.fixture
def elsewhere(workers: Cluster) -> Socket:
    """The socket of the other worker."""
    return Socket(workers[0].presence, [application.Room], connect=application.connect)


@pytest.fixture
async def web(workers: Cluster) -> AsyncIterator[httpx2.AsyncClient]:
    """A client for the endpoints."""
    transport = httpx2.ASGITransport(application.app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as web:
        yield web


def token_of(user: str) -> str:
    return application.sign(user, time.time())


def bearer(user: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token_of(user)}"}


async def test_a_user_on_one_worker_is_seen_by_a_browser_on_the_other(
    workers: Cluster, elsewhere: Socket
) -> None:
    async with (
        Browser(application.socket, token=token_of("ann")) as ann,
        Browser(elsewhere, token=token_of("bob")) as bob,
    ):
        anns, bobs = await ann.join("room:1"), await bob.join("room:1")
        workers.settle()
        assert list(await anns.presence()) == ["ann", "bob"]
        assert list(await bobs.presence()) == ["ann", "bob"]

        await bobs.ask("mood", {"text": "glad"})
        workers.settle()
        assert (await anns.presence())["bob"]["metas"][0]["mood"] == "glad"


async def test_nobody_is_a_ghost_when_a_worker_is_killed(
    workers: Cluster, elsewhere: Socket
) -> None:
    async with (
        Browser(application.socket, token=token_of("ann")) as ann,
        Browser(elsewhere, token=token_of("bob")) as bob,
    ):
        anns = await ann.join("room:1")
        await bob.join("room:1")
        workers.settle()
        workers.kill(0)
        workers.settle()
        assert list(await anns.presence()) == ["ann"]


async def test_each_side_of_a_split_has_its_own_until_it_heals(
    workers: Cluster, elsewhere: Socket
) -> None:
    async with (
        Browser(application.socket, token=token_of("ann")) as ann,
        Browser(elsewhere, token=token_of("bob")) as bob,
    ):
        anns, bobs = await ann.join("room:1"), await bob.join("room:1")
        workers.settle()
        workers.partition([0], [application.node])
        workers.settle()
        assert list(await anns.presence()) == ["ann"]
        assert list(await bobs.presence()) == ["bob"]
        workers.heal()
        workers.settle()
        assert list(await anns.presence()) == list(await bobs.presence()) == ["ann", "bob"]


async def test_what_is_said_is_heard_on_both_workers(
    workers: Cluster, elsewhere: Socket, web: httpx2.AsyncClient
) -> None:
    async with (
        Browser(application.socket, token=token_of("ann")) as ann,
        Browser(elsewhere, token=token_of("bob")) as bob,
    ):
        anns, bobs = await ann.join("room:1"), await bob.join("room:1")
        assert await anns.ask("say", {"text": "hi"}) == {}
        await web.post("/rooms/1/notices", json={"text": "tea"}, headers=bearer("ann"))
        workers.settle()
        for room in (anns, bobs):
            assert await room.expect("said") == {"user": "ann", "text": "hi"}
            assert await room.expect("notice") == {"user": "ann", "text": "tea"}


async def test_a_refusal_is_a_reply_and_the_channel_lives_on(workers: Cluster) -> None:
    async with Browser(application.socket, token=token_of("ann")) as ann:
        room = await ann.join("room:1")
        with pytest.raises(RefusedByServerError, match="1 to 500 characters"):
            await room.ask("say", {"text": ""})
        assert list(await room.presence()) == ["ann"]


async def test_one_sign_in_is_for_requests_and_sockets(
    workers: Cluster, web: httpx2.AsyncClient
) -> None:
    with pytest.raises(RefusedByServerError):
        async with Browser(application.socket, token="ann:99999999999:forged"):
            pass
    assert (await web.get("/rooms/1")).status_code == 401
    token = (await web.post("/token", json={"user": "ann"})).json()["token"]
    async with Browser(application.socket, token=token) as ann:
        await ann.join("room:1")
        answer = await web.get("/rooms/1", headers={"authorization": f"Bearer {token}"})
        assert list(answer.json()["present"]) == ["ann"]


async def test_a_user_is_disconnected_on_every_worker(
    workers: Cluster, elsewhere: Socket, web: httpx2.AsyncClient
) -> None:
    async with (
        Browser(application.socket, token=token_of("ann")) as here,
        Browser(elsewhere, token=token_of("ann")) as there,
        Browser(elsewhere, token=token_of("bob")) as bob,
    ):
        await web.delete("/connections", headers=bearer("ann"))
        workers.settle()
        assert await here.expect_close() == await there.expect_close() == 1000
        await bob.join("room:1")
