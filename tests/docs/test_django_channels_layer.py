"""The example of the channel layer: groups over servers, one of which is killed, and workers."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from itertools import cycle
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from adsum.integrations.django import ChannelLayer
from tests.support.environment import RUNTIME_DIR
from tests.support.layer_members import UNNOTICED, members
from tests.support.ports import free_port
from tests.support.waiting import DEADLINE, LONG_PAUSE, until

from .example_processes import Environment, program, server

pytestmark = pytest.mark.processes

APP = "django_channels_layer:application"
SCRIPT = "django_channels_layer.py"
CLIENTS = 12
#: Messages of each client before and after the crash.
COUNT = 20
#: Messages for two workers, which take longer to handle them than the test to send them.
QUEUED = 1_000


class Guest:
    """A client in the room, and all texts that it has received."""

    def __init__(self, connection: ClientConnection, process: int) -> None:
        self.connection = connection
        self.process = process
        self.texts: list[str] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for frame in self.connection:
                self.texts.append(json.loads(frame)["text"])
        except ConnectionClosed:
            return

    async def say(self, text: str) -> None:
        await self.connection.send(json.dumps({"text": text}))

    async def say_all(self, name: str) -> None:
        for number in range(COUNT):
            await self.say(f"{name} {number}")
            await asyncio.sleep(0)

    async def received(self, *names: str) -> None:
        """Wait for all messages with these names, each once and in order."""
        for name in names:
            await until(partial(self._has_all, name), f"all messages of {name}")
            assert self._of(name) == [f"{name} {number}" for number in range(COUNT)]

    def _has_all(self, name: str) -> bool:
        return len(self._of(name)) >= COUNT

    def _of(self, name: str) -> list[str]:
        return [text for text in self.texts if text.startswith(f"{name} ")]


async def guest(port: int) -> Guest | None:
    """Enter the room, if the server accepts connections yet."""
    try:
        connection = await connect(f"ws://127.0.0.1:{port}/rooms/1/")
    except OSError:
        return None
    return Guest(connection, json.loads(await connection.recv())["process"])


@asynccontextmanager
async def guests(*ports: int) -> AsyncIterator[list[Guest]]:
    """Clients in one room, half of them in each of two processes."""
    found: list[Guest] = []
    at = cycle(ports)
    try:
        async with asyncio.timeout(DEADLINE):
            while len(found) < CLIENTS:
                one = await until(lambda: guest(next(at)))
                if sum(one.process == other.process for other in found) < CLIENTS // 2:
                    found.append(one)
                else:  # the other process may not have started yet
                    await one.connection.close()
                    await asyncio.sleep(LONG_PAUSE)
        yield found
    finally:
        for each in found:
            await each.connection.close()


@contextmanager
def observer(environment: Environment, **settings: Any) -> Iterator[ChannelLayer]:
    """A layer of this process in the cluster of the example."""
    layer = ChannelLayer(cluster="shop", runtime_dir=environment[RUNTIME_DIR], **settings)
    with layer.portal:
        yield layer


async def scene(environment: Environment, *ports: int) -> None:
    """All guests receive all messages; after a crash, those of the other process still do."""
    async with guests(*ports) as everybody:
        names = [f"guest {number}" for number in range(len(everybody))]
        await asyncio.gather(
            *[each.say_all(name) for each, name in zip(everybody, names, strict=True)]
        )
        await asyncio.gather(*[each.received(*names) for each in everybody])
        victim = everybody[0].process
        others = [each for each in everybody if each.process != victim]
        names = [f"survivor {number}" for number in range(len(others))]
        sending = [
            asyncio.create_task(each.say_all(name))
            for each, name in zip(others, names, strict=True)
        ]
        await asyncio.sleep(0)
        os.kill(victim, signal.SIGKILL)
        await asyncio.gather(*sending)
        await asyncio.gather(*[each.received(*names) for each in others])
        async with program(environment, SCRIPT, "say", "1", "from a command") as command:
            assert await asyncio.wait_for(command.wait(), DEADLINE) == 0
        await until(lambda: all("from a command" in each.texts for each in others))


def test_guests_on_two_daphnes_receive_all_messages_although_one_is_killed(
    environment: Environment,
) -> None:
    async def main() -> None:
        ports = free_port(), free_port()
        async with AsyncExitStack() as stack:
            for port in ports:
                command = "-m", "daphne", "-b", "127.0.0.1", "-p", str(port), APP
                await stack.enter_async_context(program(environment, *command))
            await scene(environment, *ports)

    asyncio.run(main())


def test_guests_on_two_workers_of_uvicorn_receive_all_messages_although_one_is_killed(
    environment: Environment,
) -> None:
    async def main() -> None:
        async with server(environment, APP) as port:
            await scene(environment, port)
            with observer(environment) as layer:
                channel = await layer.new_channel()
                await layer.group_add("room.1", channel)
                await until(lambda: post(port))
                assert (await layer.receive(channel))["text"] == "from a view"

    asyncio.run(main())


def test_worker_that_is_killed_leaves_the_messages_to_another_one(
    environment: Environment,
) -> None:
    async def main() -> None:
        with observer(environment) as layer:
            channel = await layer.new_channel()
            await layer.group_add("room.1", channel)
            async with worker(environment) as first, worker(environment):
                await until(lambda: receivers(layer) == 2)
                for number in range(20):
                    await ask(layer, str(number))
                found = [(await layer.receive(channel))["text"] for _ in range(20)]
                assert sorted(found, key=int) == [str(number) for number in range(20)]
                first.kill()
                await until(lambda: receivers(layer) == 1)
                await ask(layer, "again")
                assert (await layer.receive(channel))["text"] == "AGAIN"

    asyncio.run(main())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_worker_that_is_stopped_says_goodbye_and_leaves_its_messages_to_another_one(
    environment: Environment, number: signal.Signals
) -> None:
    async def main() -> None:
        with observer(environment, **UNNOTICED) as layer:
            channel = await layer.new_channel()
            await layer.group_add("room.1", channel)
            async with worker(environment) as first:
                await until(lambda: receivers(layer) == 1)
                await ask(layer, "before")
                assert (await layer.receive(channel))["text"] == "BEFORE"
                first.send_signal(number)
                assert await asyncio.wait_for(first.wait(), DEADLINE) == 0
                assert "Traceback" not in (await first.stdout.read()).decode()
                await until(lambda: receivers(layer) == 0)
                await until(lambda: members(layer) == 1)
                await ask(layer, "after")
            async with worker(environment):
                assert (await layer.receive(channel))["text"] == "AFTER"

    asyncio.run(main())


def test_worker_that_is_stopped_leaves_its_queued_messages_to_another_one(
    environment: Environment,
) -> None:
    async def main() -> None:
        with observer(environment) as layer:
            channel = await layer.new_channel()
            await layer.group_add("room.1", channel)
            async with worker(environment) as first, worker(environment):
                await until(lambda: receivers(layer) == 2)
                for number in range(QUEUED):
                    await ask(layer, str(number))
                first.terminate()
                # Each once; the stopped worker may have cancelled one.
                found = [(await layer.receive(channel))["text"] for _ in range(QUEUED - 1)]
                assert len(set(found)) == QUEUED - 1
                assert await asyncio.wait_for(first.wait(), DEADLINE) == 0

    asyncio.run(main())


async def post(port: int) -> bool:
    async with httpx2.AsyncClient(trust_env=False) as client:
        try:
            url = f"http://127.0.0.1:{port}/rooms/1/messages"
            answer = await client.post(url, data={"text": "from a view"})
        except httpx2.TransportError:
            return False
        return answer.status_code == 204


@asynccontextmanager
async def worker(environment: Environment) -> AsyncIterator[Any]:
    async with program(environment, SCRIPT, "runworker", "capitals") as process:
        yield process


async def ask(layer: ChannelLayer, text: str) -> None:
    await layer.send("capitals", {"type": "message", "room": "1", "text": text})


def receivers(layer: ChannelLayer) -> int:
    return layer.portal.count("django.channels:receivers:capitals")
