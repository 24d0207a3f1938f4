"""A process with one node, told what to do line by line on its standard input.

Each line is a JSON array of a command and its arguments; each is answered by one line. Beside
that, the process reports every diff of the topic ``room``, with the time of the monotonic clock
that all processes of a host share. At the end of its input, and on SIGTERM, it stops its node.
"""

import asyncio
import hashlib
import json
import logging
import os
import random
import secrets
import signal
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


async def churn(presence: adsum.Presence, topic: str, rounds: int, size: int) -> None:
    """Update everybody on a topic again and again, with text that cannot be compressed much."""
    for _ in range(rounds):
        for key in presence.list(topic):
            presence.update(topic, key, {"text": secrets.token_hex(size // 2)}, owner=None)
            await asyncio.sleep(0)


def fingerprint(presence: adsum.Presence, topic: str) -> str:
    """The same on two nodes that list the same with the same metas, and on no others."""
    text = json.dumps(presence.list(topic), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


async def read_on(subscription: adsum.Subscription, read: list[list[Any]]) -> None:
    """Note the size and the digest of each message of bytes."""
    async for message in subscription:
        read.append([len(message.payload), hashlib.sha256(message.payload).hexdigest()])


async def publish_on(pubsub: adsum.PubSub, seed: int, size: int, count: int) -> None:
    """Publish random bytes, one message after the other."""
    rng = random.Random(seed)
    for _ in range(count):
        await pubsub.publish("data", rng.randbytes(size))


def open_all() -> list[int]:
    """Open files until no more can be."""
    opened = []
    try:
        while True:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return opened


async def main() -> None:  # noqa: C901  # one case for each command
    node = adsum.Node(**json.loads(sys.argv[1]))
    presence, meter = adsum.Presence(node), StallMeter()
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    protocol = asyncio.StreamReaderProtocol(reader)
    commands, _ = await loop.connect_read_pipe(lambda: protocol, sys.stdin)
    loop.add_signal_handler(signal.SIGTERM, reader.feed_eof)
    files: list[int] = []
    pubsub, read, publishing = adsum.PubSub(node), list[list[Any]](), set[asyncio.Task[None]]()
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
                case "untrack":
                    presence.untrack(*arguments, owner=None)
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
                case "linked":
                    others = [m for m in node.members() if m.status != "self"]
                    say("answer", sorted(m.name for m in others if m.linked))
                case "stats":
                    say("answer", node.stats())
                case "fingerprint":
                    say("answer", fingerprint(presence, *arguments))
                case "churn":
                    await churn(presence, *arguments)
                    say("answer", None)
                case "subscribe":
                    tasks.append(asyncio.create_task(read_on(pubsub.subscribe("data"), read)))
                    say("answer", None)
                case "publish":
                    publishing.add(asyncio.create_task(publish_on(pubsub, *arguments)))
                    say("answer", None)
                case "read":
                    say("answer", read)
                case "open_files":
                    files += open_all()
                    say("answer", len(files))
                case "close_files":
                    while files:
                        os.close(files.pop())
                    say("answer", None)
                case "allocate":
                    hoard = b"x" * arguments[0]
                    say("answer", len(hoard))
                case "log":  # from INFO on, to the standard error
                    logging.basicConfig(level=logging.INFO)
                    say("answer", None)
                case "block":
                    time.sleep(arguments[0])  # noqa: ASYNC251  # an application that blocks the loop
                    say("answer", None)
                case "stall":
                    longest, meter.longest = meter.longest, 0.0
                    say("answer", longest)
                case "stop":
                    break
        for task in [*tasks, *publishing]:
            task.cancel()
    commands.close()


asyncio.run(main())
