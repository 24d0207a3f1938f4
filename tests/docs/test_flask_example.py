"""The example for Flask: streams, lists and messages from threads of two gunicorn workers."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from tests.support.ports import free_port
from tests.support.waiting import DEADLINE, until

from .example_clients import website
from .example_processes import WORKERS, Environment, program

pytestmark = pytest.mark.processes


class Stream:
    """One stream of server-sent events, read event by event."""

    def __init__(self, answer: httpx2.Response) -> None:
        self._lines = answer.aiter_lines()

    async def next(self) -> Any:
        """The value of the next event."""
        async with asyncio.timeout(DEADLINE):
            async for line in self._lines:
                if line.startswith("data: "):
                    return json.loads(line.removeprefix("data: "))
        raise AssertionError("the stream has ended")

    async def reads(self, value: object) -> None:
        """Read on until an event has a value."""
        while await self.next() != value:
            pass


@asynccontextmanager
async def stream(web: httpx2.AsyncClient, path: str) -> AsyncIterator[Stream]:
    async with web.stream("GET", path, timeout=DEADLINE) as answer:
        yield Stream(answer)


async def listed(web: httpx2.AsyncClient, *users: str) -> None:
    """Wait until each of the workers lists exactly these users."""
    answers: dict[int, list[str]] = {}

    async def everywhere() -> bool:
        answer = (await web.get("/rooms/1/users")).json()
        answers[answer["worker"]] = answer["users"]
        return list(answers.values()) == [list(users)] * WORKERS

    await until(everywhere, f"each worker lists {users}")


async def script_beside(environment: Environment) -> str:
    """The users that a script lists, as docs/threads-and-wsgi.md says."""
    script = 'import adsum; print(list(adsum.Portal().list("room:1")))'
    async with program(environment, "-c", script) as beside:
        output: bytes = await asyncio.wait_for(beside.stdout.read(), DEADLINE)
        return output.decode()


def test_flask_streams_the_users_of_a_room_and_messages_from_all_workers(
    environment: Environment,
) -> None:
    async def main() -> None:
        port = free_port()
        command = ["-m", "gunicorn", "flask_app:app", "--workers", str(WORKERS), "--preload"]
        command += ["--threads", "20", "--graceful-timeout", "2", "--no-control-socket"]
        async with (
            program(environment, *command, "-b", f"127.0.0.1:{port}") as server,
            website(port, "/rooms/1/users") as web,
            stream(web, "/rooms/1/users/stream?user=ann") as ann,
        ):
            await ann.reads(["ann"])
            others = [
                stream(web, f"/rooms/1/users/stream?user={user}") for user in ("bob", "cid", "dan")
            ]
            async with others[0] as bob, others[1], others[2]:
                for each in (ann, bob):
                    await each.reads(["ann", "bob", "cid", "dan"])
                await listed(web, "ann", "bob", "cid", "dan")
            await ann.reads(["ann"])
            await listed(web, "ann")  # any worker counts the users of the message below
            async with (
                stream(web, "/rooms/1/messages/stream") as one,
                stream(web, "/rooms/1/messages/stream") as other,
            ):
                said = await web.post("/rooms/1/messages", data={"text": "tea"})
                assert said.json() == {"users": 1}
                for each in (one, other):
                    assert await each.next() == {"text": "tea"}
            assert await script_beside(environment) == "['ann']\n"
            assert await script_beside(environment | {"ADSUM_CLUSTER": "another"}) == "[]\n"
            for user in ("", "x" * 1100):
                answer = await web.get("/rooms/1/users/stream", params={"user": user})
                assert answer.status_code == 400
            assert (await web.get(f"/rooms/{'x' * 1100}/users")).status_code == 404
            server.terminate()
            output = (await asyncio.wait_for(server.stdout.read(), DEADLINE)).decode()
            assert "Traceback" not in output, output

    asyncio.run(main())
