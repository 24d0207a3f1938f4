"""A process that has everything imported, and forks processes with nodes of whatever it is told.

It is told line by line on its standard input, as a worker is: each line is a JSON array of the
settings of the nodes and the keys that they track on the topic ``room``, a node for each key; the
answer is the id of the new process, which runs until it is killed. Each of these processes says
when what its nodes see has changed: the keys that all of them list, those that only some of them
list, and those that any of them ever saw leave. All end with the launcher's input.
"""

import asyncio
import json
import os
import select
import signal
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

import adsum

#: Seconds between two looks at what the nodes list, if it changes all the time.
LOOK = 0.1


def say(kind: str, value: Any) -> None:
    # The processes share their standard output; up to so much at once is never torn apart.
    line = json.dumps([kind, time.monotonic(), value]).encode() + b"\n"
    assert len(line) <= select.PIPE_BUF
    os.write(1, line)


class Room:
    """What some nodes see of the topic, as far as it was not said yet.

    Args:
        presences: One for each node.
    """

    def __init__(self, presences: list[adsum.Presence]) -> None:
        self._presences = presences
        self._left: set[str] = set()
        self._changed = asyncio.Event()

    async def follow(self, presence: adsum.Presence) -> None:
        """Take in what one node sees."""
        async for diff in presence.watch("room"):
            self._left.update(diff.leaves)
            self._changed.set()

    async def tell(self) -> None:
        """Say what the nodes see, whenever it has changed."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            lists = [presence.list("room").keys() for presence in self._presences]
            by_all = set(lists[0]).intersection(*lists)
            by_some = set[str]().union(*lists) - by_all
            say("sees", [os.getpid(), sorted(by_all), sorted(by_some), sorted(self._left)])
            await asyncio.sleep(LOOK)


async def live(settings: dict[str, Any], keys: list[str]) -> None:
    """Run a node for each key, until the process is killed; with `at_once` all start at once."""
    at_once = settings.pop("at_once", False)
    async with AsyncExitStack() as stack:

        async def start(key: str) -> adsum.Presence:
            node = await stack.enter_async_context(adsum.Node(**settings))
            presence = adsum.Presence(node)
            presence.track("room", key, owner=None)
            return presence

        if at_once:
            presences = await asyncio.gather(*map(start, keys))
        else:
            presences = [await start(key) for key in keys]
        room = Room(presences)
        await asyncio.gather(room.tell(), *map(room.follow, presences))


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Nobody waits for what is killed.
    os.setpgid(0, 0)
    say("ready", "launcher")
    while line := sys.stdin.readline():
        child = os.fork()
        if not child:
            asyncio.run(live(*json.loads(line)))
            os._exit(0)
        say("answer", child)
    os.killpg(0, signal.SIGKILL)


main()
