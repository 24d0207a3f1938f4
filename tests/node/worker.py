"""A process with one node, told what to do line by line on its standard input.

Each line is a JSON array of a command and its arguments; each is answered by one line. Beside
that, the process reports every diff of the topic ``room``, with the time of the monotonic clock
that all processes of a host share.
"""

import asyncio
import json
import sys
import time
from typing import Any

import adsum


def say(kind: str, value: Any) -> None:
    print(json.dumps([kind, time.monotonic(), value]), flush=True)


class StallMeter:
    """The longest time for which the event loop did not come round."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._last = time.monotonic()

    async def run(self) -> None:
        while True:
            self.longest = max(self.longest, time.monotonic() - self._last - 0.001)
            self._last = time.monotonic()
            await asyncio.sleep(0.001)


async def follow(presence: adsum.Presence) -> None:
    async for diff in presence.watch("room"):
        say("diff", [sorted(diff.joins), sorted(diff.updates), sorted(diff.leaves)])


async def main() -> None:  # noqa: C901  # one case for each command
    node = adsum.Node(**json.loads(sys.argv[1]))
    presence, meter = adsum.Presence(node), StallMeter()
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with node:
        tasks = [asyncio.create_task(follow(presence)), asyncio.create_task(meter.run())]
        say("ready", node.name)
        while line := await reader.readline():
            command, *arguments = json.loads(line)
            match command:
                case "track":
                    presence.track(*arguments, owner=None)
                    say("answer", None)
                case "update":
                    presence.update(*arguments, owner=None)
                    say("answer", None)
                case "track_many":
                    topic, count = arguments
                    for start in range(0, count, 100):
                        for number in range(start, min(start + 100, count)):
                            presence.track(topic, f"user:{number}", {"n": number}, owner=None)
                        await asyncio.sleep(0)
                    say("answer", None)
                case "list":
                    say("answer", sorted(presence.list(*arguments)))
                case "count":
                    say("answer", presence.count(*arguments))
                case "members":
                    say("answer", {m.name: m.status for m in node.members()})
                case "block":
                    time.sleep(arguments[0])  # noqa: ASYNC251  # an application that blocks the loop
                    say("answer", None)
                case "stall":
                    longest, meter.longest = meter.longest, 0.0
                    say("answer", longest)
                case "stop":
                    break
        for task in tasks:
            task.cancel()


asyncio.run(main())
