"""The examples of task queues: load of live workers, a killed worker with its task, goodbyes."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import adsum
from tests.support.environment import RUNTIME_DIR
from tests.support.waiting import DEADLINE, until

from .example_processes import Environment, program
from .redis_server import redis_server

pytestmark = pytest.mark.processes

FOREVER = "600"


@pytest.fixture(autouse=True)
def _redis(environment: Environment, tmp_path: Path) -> Iterator[None]:
    with redis_server(tmp_path) as redis:
        environment["REDIS_URL"] = f"redis://127.0.0.1:{redis.port}"
        yield


class Screen:
    """The lines that the command prints which shows the workers."""

    def __init__(self, process: Any) -> None:
        self._process = process

    async def shows(self, *texts: str) -> None:
        """Read on until a line has all these texts."""
        seen = []
        async with asyncio.timeout(DEADLINE):
            while line := (await self._process.stdout.readline()).decode():
                seen.append(line)
                if all(text in line for text in texts):
                    return
        raise AssertionError(f"not shown: {texts}\n{''.join(seen)}")


@asynccontextmanager
async def screen(environment: Environment, script: str) -> AsyncIterator[Screen]:
    async with program(environment, script) as process:
        yield Screen(process)


async def send(environment: Environment, script: str, count: int, seconds: str) -> None:
    async with program(environment, script, "send", str(count), seconds) as sending:
        assert await asyncio.wait_for(sending.wait(), DEADLINE) == 0


@asynccontextmanager
async def observer(environment: Environment) -> AsyncIterator[adsum.Presence]:
    name, folder = environment["ADSUM_CLUSTER"], environment[RUNTIME_DIR]
    async with adsum.Node(cluster=name, runtime_dir=folder) as node:
        yield adsum.Presence(node)


async def busy_worker(presence: adsum.Presence) -> tuple[str, int]:
    """A worker that runs a task, and its process."""

    def busy() -> list[str]:
        entries = presence.list("workers").items()
        return [key for key, entry in entries if entry["metas"][0]["tasks"]]

    key = (await until(busy, "a worker runs a task"))[0]
    return key, int(key.rpartition(":")[2])


def test_taskiq_workers_show_load_and_a_killed_one_its_task(environment: Environment) -> None:
    script = "taskiq_workers.py"

    async def main() -> None:
        command = ["-m", "taskiq", "worker", "taskiq_workers:broker", "--workers", "2"]
        command += ["--shutdown-timeout", "1"]
        async with screen(environment, script) as shown, observer(environment) as presence:
            await shown.shows("no workers")
            async with program(environment, *command):
                await shown.shows("mail: 2 workers, 0 tasks")
                await send(environment, script, 2, "0.1")
                await shown.shows("2 workers, 0 tasks")
                await send(environment, script, 1, FOREVER)
                await shown.shows("2 workers, 1 tasks")
                key, pid = await busy_worker(presence)
                os.kill(pid, signal.SIGKILL)
                await shown.shows(f"{key} left during taskiq_workers:send_mail")
                await shown.shows("2 workers, 0 tasks")  # taskiq starts another one
            await shown.shows("no workers")

    asyncio.run(main())


def test_celery_workers_show_load_and_a_killed_one_its_task(environment: Environment) -> None:
    script = "celery_workers.py"

    async def main() -> None:
        command = ["-m", "celery", "-A", "celery_workers", "worker", "-c", "2", "-Q", "mail,late"]
        command += ["--without-gossip", "--without-mingle"]
        async with screen(environment, script) as shown, observer(environment) as presence:
            await shown.shows("no workers")
            async with program(environment, *command) as worker:
                await shown.shows("late: 2 workers, 0 tasks, mail: 2 workers, 0 tasks")
                await send(environment, script, 2, "0.1")
                await shown.shows("2 workers, 0 tasks")
                await send(environment, script, 2, FOREVER)
                await shown.shows("mail: 2 workers, 2 tasks")
                key, pid = await busy_worker(presence)
                os.kill(pid, signal.SIGKILL)
                await shown.shows(f"{key} left during celery_workers.send_mail")
                await shown.shows("2 workers, 1 tasks")  # Celery starts another child
                worker.kill()
                await shown.shows("left during celery_workers.send_mail")
                await shown.shows("no workers")

    asyncio.run(main())
