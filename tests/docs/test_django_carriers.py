"""The example of the channel layer over carriers: an engine that restarts, a killed process."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support.bus_servers import ENGINES, BusServer, running
from tests.support.ports import free_port
from tests.support.waiting import DEADLINE, until

from .example_processes import Environment, program
from .test_django_channels_layer import APP, SCRIPT, Guest, guest, worker

pytestmark = pytest.mark.processes


async def hear_each_other(first: Guest, second: Guest, text: str) -> None:
    """Wait until what each of two clients says is received by both."""
    for speaker in (first, second):
        name = f"{text} by {speaker.process}"

        async def is_heard(speaker: Guest = speaker, name: str = name) -> bool:
            await speaker.say(name)
            return name in first.texts and name in second.texts

        await until(is_heard, f"both have received {name!r}")


async def scene(environment: Environment, engine: BusServer) -> None:
    """Two servers hear each other before and after a restart of the engine; then one is killed."""
    async with AsyncExitStack() as stack:
        servers, clients = [], []
        for port in (free_port(), free_port()):
            command = "-m", "daphne", "-b", "127.0.0.1", "-p", str(port), APP
            servers.append(await stack.enter_async_context(program(environment, *command)))
            clients.append(await until(lambda port=port: guest(port)))  # type: ignore[misc]  # bound
        ann, bob = clients
        assert ann.process != bob.process
        await hear_each_other(ann, bob, "hello")
        engine.restart()
        await hear_each_other(ann, bob, "still here")
        servers[0].kill()
        await stack.enter_async_context(worker(environment))
        await bob.say("!hello")  # it waits for the worker
        await until(lambda: "!HELLO" in bob.texts, "the worker has answered")
        async with program(environment, SCRIPT, "say", "1", "from a command") as saying:
            assert await asyncio.wait_for(saying.wait(), DEADLINE) == 0
        await until(lambda: "from a command" in bob.texts)
        for client in clients:
            await client.connection.close()


@pytest.mark.parametrize("name", ENGINES)
def test_servers_without_other_links_hear_each_other_over_a_carrier(
    environment: Environment, tmp_path: Path, name: str
) -> None:
    engine = ENGINES[name](tmp_path)
    settings = {"ADSUM_CARRIER": engine.url, "ADSUM_SECRET": environment["APP_SECRET"]}
    with running(engine):
        asyncio.run(scene({**environment, **settings, "ADSUM_SIBLINGS": "0"}, engine))
