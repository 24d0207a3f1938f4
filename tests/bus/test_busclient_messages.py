"""Order, probes and bounds of the clients of the bus, with real servers."""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from adsum.bus import bussession
from tests.support.bus_servers import BusServer, NatsServer, running
from tests.support.waiting import DEADLINE, until

from .recorder import Recorder, connected, exchange, make

pytestmark = pytest.mark.processes


def test_messages_over_all_subjects_arrive_in_the_order_of_their_publishes(
    server: BusServer,
) -> None:
    async def main() -> None:
        subjects = [f"order.{number}" for number in range(7)]
        async with (
            connected(server.url) as (sender, _),
            connected(server.url, *subjects) as (_, receiver),
        ):
            expected = [b"%d" % number for number in range(3000)]
            for number, text in enumerate(expected):
                sender.publish(subjects[number % 7], text)
                if number % 100 == 0:
                    await asyncio.sleep(0)
            await until(lambda: len(receiver.received) >= 3000, "all messages")
            assert receiver.received == expected

    asyncio.run(main())


def test_large_and_small_messages_keep_their_order_and_content(server: BusServer) -> None:
    async def main() -> None:
        async with (
            connected(server.url) as (sender, _),
            connected(server.url, "data") as (_, receiver),
        ):
            sizes = [0, 1, 500_000, 2, 70_000, 3, 1_000_000, 17]
            expected = [bytes([65 + at]) * size for at, size in enumerate(sizes)]
            for text in expected:
                sender.publish("data", text)
            await until(lambda: len(receiver.received) == len(sizes), "all messages")
            assert receiver.received == expected
            await until(lambda: sender.backlog == 0, "the backlog is written")

    asyncio.run(main())


def test_probe_without_a_subscriber_is_refused_and_one_with_a_subscriber_is_not(
    server: BusServer,
) -> None:
    async def main() -> None:
        async with (
            connected(server.url, "mine") as (sender, refusals),
            connected(server.url, "inbox") as (_, receiver),
        ):
            for number in range(20):
                sender.publish("inbox", b"probed", probe=("inbox", number))
                sender.publish("nobody", b"lost", probe=("nobody", number))
                sender.publish("nobody", b"lost")
            await until(lambda: len(refusals.refused) >= 20, "refusals")
            await exchange(sender, "inbox", receiver, b"end")
            assert refusals.refused == [("nobody", number) for number in range(20)]
            assert receiver.received.count(b"probed") == 20

    asyncio.run(main())


def test_refusals_are_reported_in_a_later_turn_than_the_publish(server: BusServer) -> None:
    async def main() -> None:
        async with connected(server.url) as (sender, refusals):
            sender.publish("nobody", b"", probe=1)
            assert refusals.refused == []
            await until(lambda: refusals.refused == [1], "the refusal")

    asyncio.run(main())


@contextmanager
def subscriber(url: str, *subjects: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that subscribes; it is killed with the block at the latest."""
    command = [sys.executable, "-m", "tests.bus.subscriber", url, *subjects]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=DEADLINE)


async def refusal_after_kill(sender_url: str, url: str) -> float:
    """Kill a process that subscribes, and return the seconds until a probe is refused."""
    async with connected(sender_url) as (sender, refusals):
        with subscriber(url, "inbox") as process:

            async def reached() -> bool:
                """Whether the server knows of the subscription, which may be on another one."""
                refusals.refused.clear()
                sender.publish("inbox", b"", probe="alive")
                sender.publish("nobody", b"", probe="nobody")
                await until(lambda: "nobody" in refusals.refused, "the refusal of the other")
                return refusals.refused == ["nobody"]

            await until(reached, "the subscriber is reached")
            began = time.monotonic()
            process.send_signal(signal.SIGKILL)

            async def refused() -> bool:
                sender.publish("inbox", b"", probe="dead")
                return "dead" in refusals.refused

            await until(refused, "the refusal")
            return time.monotonic() - began


def test_probe_is_refused_after_the_only_subscriber_was_killed(server: BusServer) -> None:
    seconds = asyncio.run(refusal_after_kill(server.url, server.url))
    print(f"refused {seconds * 1000:.1f} ms after kill -9")


def test_probe_is_refused_across_servers_of_a_nats_cluster(tmp_path: Path) -> None:
    first = NatsServer(tmp_path, routes=[])
    second = NatsServer(tmp_path, routes=[first.route_port])

    async def main() -> None:
        async with (
            connected(first.url, "here") as (sender, refusals),
            connected(second.url, "there") as (_, receiver),
        ):
            await exchange(sender, "there", receiver)
            sender.publish("there", b"last", probe="there")
            sender.publish("nobody", b"", probe="nobody")
            await until(lambda: refusals.refused, "the refusal")
            await until(lambda: receiver.received[-1] == b"last", "the last message")
            assert refusals.refused == ["nobody"]
        seconds = await refusal_after_kill(first.url, second.url)
        print(f"refused {seconds * 1000:.1f} ms after kill -9")

    with running(first, second):
        asyncio.run(main())


def test_own_messages_of_nats_are_not_echoed(tmp_path: Path) -> None:
    server = NatsServer(tmp_path)

    async def main() -> None:
        async with (
            connected(server.url, "all") as (one, own),
            connected(server.url, "all") as (other, receiver),
        ):
            await exchange(one, "all", receiver, b"from one")
            await exchange(other, "all", own, b"from other")
            assert b"from one" not in own.received

    with running(server):
        asyncio.run(main())


def test_subscription_is_in_place_before_a_later_publish_of_the_same_client(
    server: BusServer,
) -> None:
    async def main() -> None:
        async with (
            connected(server.url) as (client, handler),
            connected(server.url, "requests") as (other, requests),
        ):
            for number in range(50):
                client.subscribe(f"answers.{number}")
                client.publish("requests", b"%d" % number)
                await until(partial(requests.received.__contains__, b"%d" % number), "the request")
                other.publish(f"answers.{number}", b"answer", probe=number)
            await until(lambda: len(handler.received) == 50, "the answers")

    asyncio.run(main())


def test_thousands_of_subscriptions_are_in_place_before_a_later_publish(
    server: BusServer,
) -> None:
    async def main() -> None:
        async with (
            connected(server.url) as (subscriber, receiver),
            connected(server.url, "ready") as (sender, ready),
        ):
            subjects = [f"topic.{number}" for number in range(4096)]
            for number, subject in enumerate(subjects):
                subscriber.subscribe(subject)
                if number % 2:
                    subscriber.unsubscribe(subjects[number - 1])
            subscriber.publish("ready", b"now")
            await until(lambda: ready.received, "the publish")
            for subject in subjects:
                sender.publish(subject, subject.encode())
            expected = [subject.encode() for subject in subjects[1::2]]
            await until(lambda: len(receiver.received) >= len(expected), "all messages")
            assert receiver.received == expected

    asyncio.run(main())


def test_unsubscribed_subject_is_refused_and_its_messages_end(server: BusServer) -> None:
    async def main() -> None:
        async with (
            connected(server.url, "one", "two") as (client, handler),
            connected(server.url) as (sender, refusals),
        ):
            client.unsubscribe("one")
            client.unsubscribe("one")
            client.unsubscribe("never")
            client.subscribe("two")

            async def refused() -> bool:
                sender.publish("one", b"one", probe="one")
                return "one" in refusals.refused

            await until(refused, "the refusal")
            count = handler.received.count(b"one")
            sender.publish("one", b"one")
            await exchange(sender, "two", handler, b"two")
            assert handler.received.count(b"one") == count
            client.subscribe("one")
            await exchange(sender, "one", handler, b"again")

    asyncio.run(main())


def test_failing_handler_is_logged_and_ends_nothing(
    server: BusServer, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Recorder):
        def bus_received(self, data: bytes) -> None:
            super().bus_received(data)
            raise ValueError("no")

    async def main() -> None:
        handler = Failing()
        client = make(server.url, handler)
        await client.connect(["inbox"])
        async with connected(server.url) as (sender, _):
            await exchange(sender, "inbox", handler, b"one")
            await exchange(sender, "inbox", handler, b"two")
            assert handler.changes == ["connected"]
        await client.close()

    asyncio.run(main())
    assert "bus_received" in caplog.text


def test_backlog_beyond_its_bound_is_dropped_and_counted(
    server: BusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bussession, "MAX_BACKLOG", 100_000)

    async def main() -> None:
        async with (
            connected(server.url) as (sender, _),
            connected(server.url, "data") as (_, receiver),
        ):
            for _ in range(10):
                sender.publish("data", bytes(30_000))
            assert 60_000 < sender.backlog <= 100_000
            assert sender.dropped_total == 7
            await until(lambda: len(receiver.received) == 3 and sender.backlog == 0, "the backlog")
            sender.publish("data", b"later")
            await until(lambda: receiver.received[-1] == b"later", "a later message")

    asyncio.run(main())


def test_number_of_queued_messages_is_bounded(
    server: BusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bussession, "MAX_QUEUED", 10)

    async def main() -> None:
        async with connected(server.url) as (sender, _):
            for _ in range(15):
                sender.publish("data", b"")
            assert sender.dropped_total == 5

    asyncio.run(main())


def test_flood_of_messages_leaves_turns_to_other_tasks(server: BusServer) -> None:
    async def main() -> None:
        turns: list[int] = []
        async with (
            connected(server.url) as (sender, _),
            connected(server.url, "data") as (_, receiver),
        ):

            async def count_turns() -> None:
                while True:
                    turns.append(len(receiver.received))
                    await asyncio.sleep(0)

            for _ in range(20_000):
                sender.publish("data", b"x" * 100)
            task = asyncio.create_task(count_turns())
            await until(lambda: len(receiver.received) == 20_000, "all messages")
            task.cancel()
            steps = [after - before for before, after in itertools.pairwise(turns)]
            assert max(steps) < 3000

    asyncio.run(main())


def test_closing_sends_the_backlog_and_can_be_repeated(server: BusServer) -> None:
    async def main() -> None:
        async with connected(server.url, "data") as (_, receiver):
            sender, handler = make(server.url, own := Recorder()), own
            await sender.connect([])
            for number in range(500):
                sender.publish("data", b"%d" % number)
            await sender.close()
            await sender.close()
            sender.abandon()
            assert not sender.connected
            assert sender.backlog == 0
            sender.publish("data", b"late")
            await until(lambda: len(receiver.received) == 500, "the backlog")
            assert handler.changes == ["connected"]

    asyncio.run(main())


def test_probes_beyond_the_remembered_number_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adsum.bus import natsclient

    monkeypatch.setattr(natsclient, "MAX_PROBES", 10)
    server = NatsServer(tmp_path)

    async def main() -> None:
        async with connected(server.url) as (sender, refusals):
            for number in range(25):
                sender.publish("nobody", b"", probe=number)
            await until(lambda: 24 in refusals.refused, "the refusal of the last probe")
            assert refusals.refused == list(range(15, 25))

    with running(server):
        asyncio.run(main())


def test_process_with_a_client_ends_without_warnings(server: BusServer) -> None:
    program = f"""
import asyncio
from adsum.bus.carrierurl import make_client
from tests.bus.recorder import Recorder
async def main():
    client = make_client({server.url!r}, Recorder(), "n")
    await client.connect(["a"])
    client.publish("a", b"x")
    await asyncio.sleep(0)
    client.abandon()
asyncio.run(main())
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", program],
        env={**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert (done.returncode, done.stderr) == (0, "")
