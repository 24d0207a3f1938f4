"""Servers with several workers: they find each other, are reloaded, and end; see `make compat`."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

import adsum
from tests.support.compatibility import CellRecord, is_whole
from tests.support.waiting import until

from .server_families import SERVERS, ServerFamily, Workers, write_files
from .visitors import ROOM, extensions, visitors

pytestmark = pytest.mark.processes

#: Seconds for which presences of a stopping server stay: its clients are back within them.
LINGER = 10.0
VISITORS = 8


class Witness:
    """A member of the cluster that lists a room.

    Attributes:
        gone: The keys that it has seen leave altogether.
    """

    def __init__(self, node: adsum.Node) -> None:
        self.presence = adsum.Presence(node)
        self.gone: list[str] = []

    async def watch(self) -> None:
        known: set[str] = set()
        with self.presence.watch(ROOM) as diffs:
            async for _ in diffs:
                listed = set(self.presence.list(ROOM))
                self.gone += sorted(known - listed)
                known = listed

    def lists_once(self, users: list[str]) -> bool:
        listed = self.presence.list(ROOM)
        return sorted(listed) == users and all(len(one["metas"]) == 1 for one in listed.values())


@asynccontextmanager
async def witness(cluster: str) -> AsyncIterator[Witness]:
    async with adsum.Node(cluster=cluster) as node:
        made = Witness(node)
        task = asyncio.create_task(made.watch())
        yield made
        task.cancel()


@asynccontextmanager
async def workers_of(family: ServerFamily, directory: Path, count: int) -> AsyncIterator[Workers]:
    write_files(directory)
    settings = {"ADSUM_LINGER": str(LINGER)}
    if family.processes:  # their command lines differ in the port
        settings["ADSUM_CLUSTER"] = f"daphne-{os.getpid()}"
    workers = Workers(family, directory, settings, count)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(workers.kill)
        yield workers


SHORT = [family for family in SERVERS if family.short]


def name_of(family: ServerFamily) -> str:
    return family.name


@pytest.mark.parametrize("family", SERVERS if is_whole() else SHORT, ids=name_of)
def test_workers_agree_on_the_members_and_end_after_sigterm(
    directory: Path, family: ServerFamily, compat_cells: CellRecord
) -> None:
    fill = partial(compat_cells.add, "server", family.title)

    async def main() -> None:
        async with workers_of(family, directory, 4 if is_whole() else 2) as workers:
            fill("four workers agree after", f"{await workers.start():.1f} s")
            assert ("adsum.direct" in await extensions(workers.ports[0])) == family.direct
            if is_whole():
                fill("killed worker is not listed after", await kill_one(workers))
                fill("reload", await reloaded(workers))
            code = await workers.terminate()
            fill("exit code after SIGTERM", str(code))
            assert code == 0, workers.log

    asyncio.run(main())


async def kill_one(workers: Workers) -> str:
    """Kill a worker; returns the time until the others list it no more."""
    metas = await workers.until_agreed()
    name = next(iter(metas))
    os.kill(metas[name]["pid"], signal.SIGKILL)
    if not workers.family.survives:
        await workers.ended()
        await workers.start()
        return "the server ends"
    seconds = await workers.until_forgotten(name)
    if workers.family.processes:
        await workers.replace(metas[name]["pid"])
    await workers.until_agreed(without=[name])
    return f"{seconds:.2f} s"


async def reloaded(workers: Workers) -> str:
    """Reload the server under its visitors, of whom nobody is seen to leave."""
    async with (
        witness(await workers.cluster()) as seen,
        visitors(workers.ports, VISITORS) as users,
    ):
        await until(lambda: seen.lists_once(users), "the visitors are present")
        await workers.reload()
        await until(lambda: seen.lists_once(users), "the visitors are back")
        assert seen.gone == []
        return "nobody leaves"
