"""The examples of channels start as their first lines say, and do for clients what they say."""

import asyncio
import time

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.ports import free_port
from tests.support.waiting import DEADLINE, until

from .channel_client import channel_client
from .example_clients import Poller, code_of_end, on_all_workers, status_of, website
from .example_processes import WORKERS, Environment, program, server, serving

pytestmark = pytest.mark.processes
NO_DEFLATE = ("--ws-per-message-deflate", "false")


def test_fastapi_has_one_sign_in_for_requests_and_sockets(environment: Environment) -> None:
    async def main() -> None:
        async with (
            server(environment, "fastapi_channels:app", *NO_DEFLATE) as port,
            website(port, "/workers", lambda it: len(it["workers"]) == WORKERS) as web,
        ):
            token = await fastapi_token(web, "ann")
            assert (await web.get("/rooms/1")).status_code == 401
            long = f"/rooms/{'x' * 1100}"
            assert (await web.get(long, headers=bearer(token))).status_code == 422
            assert (await web.get("/rooms/1", headers=bearer(token))).json()["present"] == {}
            for wrong in (None, token.replace("ann", "bob"), f"ann:{time.time():.0f}:00"):
                assert await status_of(channel_client(port, token=wrong)) == 403
            async with channel_client(port, token=token) as ann:
                await ann.join("room:1")
                await ann.sees("room:1", "ann")

                async def listed() -> bool:  # by the other worker a moment later
                    answer = await web.get("/rooms/1", headers=bearer(token))
                    return list(answer.json()["present"]) == ["ann"]

                await until(listed, "ann is listed")

    asyncio.run(main())


def test_fastapi_speaks_to_rooms_on_all_workers_and_disconnects_a_user_everywhere(
    environment: Environment,
) -> None:
    async def main() -> None:
        async with (
            server(environment, "fastapi_channels:app", *NO_DEFLATE) as port,
            website(port, "/workers", lambda it: len(it["workers"]) == WORKERS) as web,
        ):
            ann, bob = await fastapi_token(web, "ann"), await fastapi_token(web, "bob")
            async with (
                on_all_workers(lambda: channel_client(port, token=ann), "room:1") as anns,
                channel_client(port, token=bob) as watcher,
            ):
                await watcher.join("room:1")
                for one in (*anns, watcher):
                    await one.sees("room:1", "ann", "bob")
                said = await anns[0].ask("room:1", "say", {"text": "hi"})
                assert said == {"status": "ok", "response": {}}
                for one in (*anns, watcher):
                    assert await one.expect("room:1", "said") == {"user": "ann", "text": "hi"}
                refused = await anns[0].ask("room:1", "say", {"text": ""})
                assert refused["response"] == {"reason": "text: must have 1 to 500 characters"}
                await web.post("/rooms/1/notices", json={"text": "tea"}, headers=bearer(bob))
                for one in (*anns, watcher):
                    assert await one.expect("room:1", "notice") == {"user": "bob", "text": "tea"}
                assert (await web.delete("/connections", headers=bearer(ann))).is_success
                for one in anns:
                    assert await code_of_end(one) == 1000
                await watcher.sees("room:1", "bob")

    asyncio.run(main())


def test_starlette_shows_states_counts_rooms_and_mutes(environment: Environment) -> None:
    async def main() -> None:
        async with (
            server(environment, "starlette_channels:app", *NO_DEFLATE) as port,
            website(port, "/") as web,
        ):
            assert "<title>" in (await web.get("/")).text
            assert await status_of(channel_client(port)) == 403
            async with (
                on_all_workers(lambda: channel_client(port, {"user": "eye"}), "lobby") as lobby,
                channel_client(port, {"user": "ann"}) as ann,
                channel_client(port, {"user": "bob"}) as bob,
            ):
                for one in (ann, bob):
                    await one.join("room:1")
                for one in lobby:
                    await one.sees("lobby", "1")
                await bob.join("room:2")
                for one in lobby:
                    await one.sees("lobby", "1", "2")
                await ann.sees("room:1", "ann", "bob")
                await ann.push("room:1", "state", {"state": "typing"})
                await bob.shows("room:1", "ann", {"state": "typing"})
                await ann.ask("room:1", "mute", {"user": "bob"})
                await ann.push("room:1", "say", {"text": "ho"})
                assert await bob.expect("room:1", "said") == {"user": "ann", "text": "ho"}
                await bob.push("room:1", "say", {"text": "hi"})
                await bob.push("room:1", "state", {"state": "away"})
                await ann.shows("room:1", "bob", {"state": "away"})
                assert await ann.ask("room:1", "state", {"state": "glad"}) == {
                    "status": "error",
                    "response": {"reason": "state: must be here, typing or away"},
                }
                assert not [it for it in ann.frames if it[3] == "said"]
                await bob.ask("room:2", "phx_leave", {})
                for one in lobby:
                    await one.sees("lobby", "1")

    asyncio.run(main())


def test_aiohttp_carries_sockets_and_long_polls_between_processes(environment: Environment) -> None:
    async def main() -> None:
        port = free_port()
        environment["PORT"] = str(port)
        async with (
            serving(environment, "aiohttp_app.py"),
            serving(environment, "aiohttp_app.py"),
            website(port, "/rooms/1") as web,
            on_all_workers(lambda: channel_client(port, {"user": "ann"}), "room:1") as anns,
        ):
            assert await status_of(channel_client(port, {"vsn": "9.9.9"})) == 403
            for user in ("", "x" * 1100):
                assert await status_of(channel_client(port, {"user": user})) == 403
            assert (await web.get(f"/rooms/{'x' * 1100}")).status_code == 404
            poller = Poller(web, {"user": "bob"})
            await poller.begin()
            await poller.send(["1", "1", "room:1", "phx_join", {}])
            for one in anns:
                await one.sees("room:1", "ann", "bob")
            for number in range(10):  # over connections of their own, so to both processes
                await poller.send(["1", str(number), "room:1", "shout", {"number": number}])
                for one in anns:
                    assert await one.expect("room:1", "shout") == {"number": number}
            assert await poller.expect("presence_state")
            assert [(await poller.expect("shout"))["number"] for _ in range(10)] == [*range(10)]
            assert list((await web.get("/rooms/1")).json()["present"]) == ["ann", "bob"]

    asyncio.run(main())


def test_aiohttp_stop_asks_clients_to_reconnect(environment: Environment) -> None:
    async def main() -> None:
        environment["PORT"] = str(free_port())
        async with (
            program(environment, "aiohttp_app.py") as process,
            website(int(environment["PORT"]), "/rooms/1"),
            channel_client(int(environment["PORT"])) as one,
        ):
            await one.join("room:1")
            process.terminate()
            assert await code_of_end(one) == 1012
            assert await asyncio.wait_for(process.wait(), DEADLINE) == 0

    asyncio.run(main())


def test_aiohttp_waits_for_a_client_that_does_not_read(environment: Environment) -> None:
    async def main() -> None:
        environment["PORT"] = str(free_port())
        async with (
            serving(environment, "aiohttp_app.py"),
            website(int(environment["PORT"]), "/rooms/1"),
            channel_client(int(environment["PORT"]), max_queue=1) as slow,
            channel_client(int(environment["PORT"])) as fast,
        ):
            for one in (slow, fast):
                await one.join("room:1")
            for _ in range(300):
                await fast.push("room:1", "shout", {"text": "x" * 60_000})
                await fast.expect("room:1", "shout")
            with pytest.raises((ConnectionClosed, TimeoutError)) as end:
                await slow.expect("room:1", "never")
            assert isinstance(end.value, ConnectionClosed)
            assert len(slow.frames) < 300

    asyncio.run(main())


async def fastapi_token(web: httpx2.AsyncClient, user: str) -> str:
    return str((await web.post("/token", json={"user": user})).json()["token"])


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}
