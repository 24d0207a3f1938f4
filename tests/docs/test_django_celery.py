"""The example of Celery with the channel layer: tasks of prefork workers, consumers of a server."""

import asyncio
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from adsum.integrations.django import ChannelLayer
from tests.support.layer_members import UNNOTICED, members
from tests.support.ports import free_port
from tests.support.waiting import DEADLINE, until

from .example_processes import Environment, program
from .redis_server import redis_server
from .test_django_channels_layer import APP, Guest, guest, observer

pytestmark = pytest.mark.processes

SCRIPT = "django_celery.py"
CHILDREN = 2
#: Tasks of all children; one child runs several of them.
TASKS = 20


async def command(environment: Environment, *arguments: str) -> None:
    async with program(environment, SCRIPT, *arguments) as sending:
        assert await asyncio.wait_for(sending.wait(), DEADLINE) == 0


async def hears(client: Guest, text: str) -> None:
    await until(lambda: text in client.texts, f"the client has received {text!r}")


def has_texts(client: Guest, count: int) -> bool:
    return len(client.texts) >= count


async def scene(environment: Environment, layer: ChannelLayer, port: int, celery: Any) -> None:
    """Two clients hear many tasks, and answer one; then the worker stops."""
    redis = Celery(broker=environment["REDIS_URL"])
    first, second = [await until(lambda: guest(port)) for _ in range(2)]
    before = members(layer)
    await command(environment, "announce", "1", "closed at six")
    for client in (first, second):
        await hears(client, "closed at six")
    await until(lambda: members(layer) == before + 1, "a node starts at the first use of a child")
    names = [str(number) for number in range(TASKS)]
    for name in names:
        await asyncio.to_thread(redis.send_task, "django_celery.announce", ["1", name])
    for client in (first, second):
        await until(partial(has_texts, client, 1 + TASKS))
        assert sorted(client.texts[1:], key=int) == names
    assert members(layer) <= before + CHILDREN, "a child has one node for all of its tasks"
    await command(environment, "ask", "1", "who is here?")
    await hears(second, "who is here?")
    await second.say("bob")
    await hears(first, "heard: bob")
    celery.send_signal(signal.SIGTERM)
    await until(lambda: members(layer) == before, "the children have said goodbye")
    assert await asyncio.wait_for(celery.wait(), DEADLINE) == 0
    for client in (first, second):
        await client.connection.close()


def test_tasks_of_celery_reach_consumers_and_hear_their_answers(
    environment: Environment, tmp_path: Path
) -> None:
    async def main(redis: str) -> None:
        surroundings = {**environment, "REDIS_URL": redis}
        port = free_port()
        server = "-m", "daphne", "-b", "127.0.0.1", "-p", str(port), APP
        worker = "-m", "celery", "-A", "django_celery", "worker", "-c", str(CHILDREN)
        with observer(environment, **UNNOTICED) as layer:
            await layer.new_channel()
            async with program(surroundings, *server), program(surroundings, *worker) as celery:
                await scene(surroundings, layer, port, celery)

    with redis_server(tmp_path) as redis:
        asyncio.run(main(f"redis://127.0.0.1:{redis.port}"))
