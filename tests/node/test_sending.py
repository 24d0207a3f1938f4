"""Messages between nodes on sockets: bursts, peers that do not read, links that open at once."""

import asyncio
import base64
import os
from pathlib import Path
from typing import Any

import pytest

import adsum
from adsum.channels import Channel, Socket
from adsum.channels.carriers.noderequests import NodeRequests, Question
from adsum.driver.observer import Observer
from adsum.driver.socketdriver import SocketDriver
from adsum.replication import messaging
from adsum.replication.messages import Publish
from adsum.transport import framing
from adsum.transport.contract import Link
from adsum.transport.framing import PAYLOAD, encode_frame
from tests.support.nodes import run, running
from tests.support.waiting import until

#: More than the 8 MiB above which a transport closes a link, in one turn of the event loop.
BURST = 2000
SIZE = 9_000


def text() -> str:
    """A text that compression makes only a quarter smaller."""
    return base64.b64encode(os.urandom(SIZE * 3 // 4)).decode()


def links(node: adsum.Node) -> list[Link]:
    driver = node.driver
    assert isinstance(driver, SocketDriver)
    return list(driver._links.values())


def stop_reading(node: adsum.Node, peer: adsum.Node) -> None:
    """Let a node read nothing from a peer any more."""
    for link in links(node):
        if link.peer.name == peer.name:
            wire: asyncio.Transport = link.wire  # type: ignore[attr-defined]  # a stream link
            wire.pause_reading()


class Listener(Observer):
    """An observer that collects messages."""

    def __init__(self, node: adsum.Node) -> None:
        self.messages: list[Publish] = []
        node.observe(self)

    def delivered(self, sender: str, message: Publish) -> None:
        """See `Observer`."""
        self.messages.append(message)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience for a machine under load, where it is not what is tested."""
    monkeypatch.setattr(messaging, "PATIENCE", 20.0)


@pytest.mark.usefixtures("patient")
def test_burst_within_one_turn_arrives_completely_over_one_link(cluster_name: str) -> None:
    async def main() -> None:
        async with running(2, cluster=cluster_name) as (one, two):
            pubsub = adsum.PubSub(one)
            inbox = adsum.PubSub(two).subscribe("room", limit=BURST, limit_bytes=2 * BURST * SIZE)
            before, texts = links(one), [text() for _ in range(BURST)]
            missed = await asyncio.gather(
                *(pubsub.publish("room", {"n": n, "text": texts[n]}) for n in range(BURST))
            )
            assert set(missed) == {0}
            for number in range(BURST):
                assert (await anext(inbox)).payload["n"] == number
            assert links(one) == before
            assert one.stats()["missed_messages_total"] == 0

    run(main())


@pytest.mark.usefixtures("patient")
def test_burst_of_broadcasts_arrives_complete_over_the_same_link(cluster_name: str) -> None:
    class Room(Channel, topic="room:{room}"):
        pass

    async def main() -> None:
        async with running(2, cluster=cluster_name) as (one, two):
            socket, listener = Socket(adsum.Presence(one), [Room]), Listener(two)
            before, texts = links(one), [text() for _ in range(BURST)]
            await asyncio.gather(
                *(socket.broadcast("room:1", str(n), {"text": texts[n]}) for n in range(BURST))
            )
            await until(lambda: len(broadcasts(listener)) == BURST)
            assert broadcasts(listener) == [*map(str, range(BURST))]
            assert links(one) == before

    run(main())


def broadcasts(listener: Listener) -> list[str]:
    """The events of the broadcasts that have arrived, without the marks between them."""
    return [message.event for message in listener.messages if "/text/" in message.topic]


@pytest.mark.usefixtures("patient")
def test_message_queued_for_several_peers_is_compressed_once(
    cluster_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compressed = list[int]()

    def count(payload: bytes) -> bytes:
        compressed.append(len(payload))
        return encode_frame(PAYLOAD, payload)

    async def main() -> None:
        async with running(4, cluster=cluster_name) as nodes:
            listeners = [Listener(node) for node in nodes[1:]]
            pubsub = adsum.PubSub(nodes[0])
            monkeypatch.setattr(framing, "_encode_payload", count)
            await asyncio.gather(*(pubsub.publish("room", {"text": text()}) for _ in range(200)))
            await until(lambda: all(len(one.messages) == 200 for one in listeners))

    run(main())
    assert len([size for size in compressed if size > SIZE]) == 200


@pytest.mark.usefixtures("patient")
def test_relayed_question_and_answer_may_exceed_the_high_water_mark(cluster_name: str) -> None:
    class Echo:
        def check(self, question: Question) -> None:
            """Every object is a question."""

        async def answer(self, question: Question) -> Question:
            return question

        def lost(self, question: Question) -> None:
            raise AssertionError

    async def main() -> None:
        async with running(2, cluster=cluster_name) as (one, two):
            asking, _ = NodeRequests(one, Echo()), NodeRequests(two, Echo())
            question = {"text": "".join(text() for _ in range(300))}
            assert await asking.ask(two.name, question, 20.0) == question

    run(main())


@pytest.mark.slow
def test_slow_consumer_misses_messages_and_delays_no_other(cluster_name: str) -> None:
    async def main() -> None:
        async with running(3, cluster=cluster_name) as (sender, stuck, reader):
            pubsub = adsum.PubSub(sender)
            inbox = adsum.PubSub(reader).subscribe("room", limit=BURST)
            stop_reading(stuck, sender)
            loop = asyncio.get_running_loop()
            began, texts = loop.time(), [text() for _ in range(300)]
            burst = asyncio.gather(*(pubsub.publish("room", {"text": one}) for one in texts))
            for _ in texts:
                await anext(inbox)
            assert not burst.done()
            missed = await burst
            assert loop.time() - began >= 1.0
            assert missed[0] == 0
            assert missed[-1] == 1
            assert sender.stats()["missed_messages_total"] == sum(missed)

            began = loop.time()
            assert await pubsub.publish("room", {"text": "later"}) == 1
            assert loop.time() - began < 0.5

    run(main())


@pytest.mark.slow
def test_cancelled_publish_is_counted_as_missed(cluster_name: str) -> None:
    async def main() -> None:
        async with running(2, cluster=cluster_name) as (sender, stuck):
            pubsub = adsum.PubSub(sender)
            stop_reading(stuck, sender)
            publishing = [
                asyncio.create_task(pubsub.publish("room", {"text": text()})) for _ in range(300)
            ]
            (link,) = sender.driver.engine._links
            turns_without_room = 0
            while turns_without_room < 5:  # what is queued in one turn may fit into the kernel
                await asyncio.sleep(0)
                turns_without_room = 0 if link.writable else turns_without_room + 1
            waiting = [task for task in publishing if not task.done()]
            assert waiting
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            assert sender.stats()["missed_messages_total"] == len(waiting)

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize("cancelled", [False, True])
def test_publishers_under_backpressure_return_when_the_node_stops(
    cluster_name: str, cancelled: bool
) -> None:
    async def main() -> None:
        async with running(2, cluster=cluster_name) as (sender, stuck):
            pubsub = adsum.PubSub(sender)
            stop_reading(stuck, sender)
            burst = asyncio.gather(*(pubsub.publish("room", {"text": text()}) for _ in range(300)))
            await asyncio.sleep(0.05)
            before = asyncio.all_tasks()
            stopping = asyncio.create_task(sender.stop())
            await asyncio.sleep(0)
            for task in asyncio.all_tasks() - before if cancelled else ():
                task.cancel()
            await asyncio.wait([stopping])
            async with asyncio.timeout(5):
                assert (await burst)[-1] == 1

    run(main())


def test_messages_arrive_once_and_in_order_when_both_ends_dial_at_once(tmp_path: Path) -> None:
    count = 50

    async def talk(node: adsum.Node, pubsub: adsum.PubSub) -> list[int]:
        # At the first moment, while there may be two links.
        while not [one for one in node.members() if one.status == "up"]:  # noqa: ASYNC110
            await asyncio.sleep(0)
        return [await pubsub.publish("room", {"n": n}) for n in range(count)]

    async def meet(number: int) -> None:
        addresses = [f"unix:{tmp_path}/{number}{side}" for side in "ab"]
        settings: dict[str, Any] = {"cluster": "race", "siblings": False}
        one = adsum.Node(name="a", listen=addresses[0], peers=addresses[1], **settings)
        two = adsum.Node(name="b", listen=addresses[1], peers=addresses[0], **settings)
        pubsubs = [adsum.PubSub(one), adsum.PubSub(two)]
        await one.start()
        await two.start()
        inboxes = [pubsub.subscribe("room") for pubsub in pubsubs]
        missed = await asyncio.gather(talk(one, pubsubs[0]), talk(two, pubsubs[1]))
        assert {*missed[0], *missed[1]} == {0}
        for inbox, sender in zip(inboxes, "ba", strict=True):
            async with asyncio.timeout(5):
                numbers = list[int]()
                while len(numbers) < count:
                    message = await anext(inbox)
                    if message.sender == sender:
                        numbers.append(message.payload["n"])
            assert numbers == list(range(count))
        await one.stop()
        await two.stop()

    async def main() -> None:
        for number in range(25):
            await meet(number)

    run(main())
