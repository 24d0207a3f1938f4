"""A repr says what an object is and where it stands: in any state and thread, short, and no secret.

Tokens, cookies, metas, payloads and secrets are in none: a repr ends up in logs and error reports.
"""

import asyncio
import os
import threading
from typing import Any

import pytest

import adsum
from adsum.channels import Channel, ChannelPresence, Client, Socket
from adsum.testing import Browser

SECRET = "s3cret-s3cret-s3cret"
LONG = "x" * 1000


class Room(Channel, topic="room:{room}"):
    seen: "Room"
    present: ChannelPresence

    async def join(self, payload: Any) -> None:
        Room.seen = self
        Room.present = self.track("ann", {"token": SECRET})


class Objects:
    """One of each, with a secret in each place that may hold one."""

    def __init__(self) -> None:
        self.node = adsum.Node(
            name="web-1", cluster="shop", siblings=False, secret=SECRET, listen="127.0.0.1:0"
        )
        self.presence = adsum.Presence(self.node)
        self.pubsub = adsum.PubSub(self.node)
        self.socket = Socket(self.presence, [Room])
        self.client = Client({"token": SECRET}, {"cookie": SECRET}, SECRET, assigns={"key": SECRET})
        self.made: list[object] = [self.node, self.presence, self.pubsub, self.socket, self.client]

    async def start(self) -> None:
        await self.node.start()
        owner = SECRET, LONG
        self.tracked = self.presence.track("room:1", LONG, {"token": SECRET}, owner=owner)
        self.watch = self.presence.watch("room:1")
        self.subscription = self.pubsub.subscribe("room:1", limit=1)
        for _ in range(2):
            await self.pubsub.publish("room:1", {"token": SECRET})
        self.made += [self.tracked, self.watch, self.subscription]

    def reprs(self) -> list[str]:
        shown = [repr(one) for one in self.made]
        for text in shown:
            assert len(text) < 400, text
            assert text.isprintable(), text
            assert SECRET not in text
        return shown


def test_repr_shows_the_state_of_an_object() -> None:
    async def main() -> None:
        objects = Objects()
        assert objects.reprs() == [
            "<Node 'web-1', not running>",
            "<Presence on <Node 'web-1', not running>>",
            "<PubSub on <Node 'web-1', not running>>",
            "<Socket of 1 channels, 0 connections, on <Node 'web-1', not running>>",
            "<Client None at None over websocket>",
        ]
        assert repr(adsum.Node()) == "<Node without a name, not running>"
        await objects.start()
        node = f"<Node 'web-1' of cluster 'shop', running, at '{objects.node.address}'>"
        shown = objects.reprs()
        assert shown[:2] == [node, f"<Presence on {node}>"]
        assert shown[-3].startswith("<Tracked 'xxx")
        assert shown[-3].endswith("... on 'room:1', active>")
        assert shown[-2:] == [
            "<Watch on 'room:1', 1 changes waiting>",
            "<Subscription to 'room:1', 1 messages waiting, 1 dropped>",
        ]
        objects.node.begin_stop()
        assert "stopping" in repr(objects.node)
        await objects.node.stop()
        shown = objects.reprs()
        assert shown[0] == "<Node 'web-1', not running>"
        assert shown[-3].endswith("ended>")
        assert shown[-2:] == [
            "<Watch on 'room:1', closed>",
            "<Subscription to 'room:1', closed, 1 dropped>",
        ]

    asyncio.run(main())


def test_repr_of_channel_objects_shows_their_state() -> None:
    async def main() -> None:
        objects = Objects()
        async with objects.node, Browser(objects.socket, {"user": SECRET}, token=SECRET) as ann:
            await ann.join("room:1")
            assert repr(Room.seen) == "<Room on 'room:1'>"
            assert repr(Room.present) == "<ChannelPresence 'ann' on 'room:1', active>"
            assert repr(Room.seen.client) == "<Client None at 'testclient' over websocket>"
            assert "1 connections" in repr(objects.socket)
        assert repr(Room.present) == "<ChannelPresence 'ann' on 'room:1', ended>"

    asyncio.run(main())


def test_repr_works_in_any_thread_and_in_a_forked_child() -> None:
    async def main() -> None:
        objects = Objects()
        await objects.start()
        here = objects.reprs()
        assert await asyncio.to_thread(objects.reprs) == here
        child = os.fork()
        if child == 0:
            try:
                shown = objects.reprs()
                fine = "left to the parent" in shown[0] and "ended" in shown[-3]
                os._exit(0 if fine and "closed" in shown[-2] else 1)
            finally:
                os._exit(2)
        _, status = os.waitpid(child, 0)  # noqa: ASYNC222 - it ends at once
        assert os.waitstatus_to_exitcode(status) == 0
        await objects.node.stop()

    asyncio.run(main())


def test_repr_does_not_fail_during_concurrent_changes() -> None:
    async def main() -> None:
        objects = Objects()
        await objects.start()
        stop = threading.Event()

        def look() -> int:
            times = len(objects.reprs())
            while not stop.is_set():
                times += len(objects.reprs())
            return times

        looking = asyncio.create_task(asyncio.to_thread(look))
        for number in range(200):
            with objects.presence.track("room:1", f"user {number}"):
                await asyncio.sleep(0)
        stop.set()
        assert await looking > 0
        await objects.node.stop()

    asyncio.run(main())


@pytest.mark.parametrize("made", [adsum.Node(secret=SECRET, siblings=False).settings])
def test_repr_of_settings_shows_no_secret(made: object) -> None:
    assert SECRET not in repr(made)
