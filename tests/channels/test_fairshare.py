"""Fair turns: what clients have done for them in one turn of the event loop, whatever they queue.

Time is counted in turns of the event loop and in frames, so no test depends on the machine.
"""

import asyncio
import json
from collections import Counter
from functools import partial
from typing import Any

import pytest

from adsum.channels import Channel, Client, Limits, on
from adsum.channels.carriers import session
from adsum.channels.connection import Connection
from adsum.channels.deliveries import MAX_TOGETHER
from adsum.channels.flow.fairshare import BUDGET, ROUND, WORK, FairShare
from adsum.channels.wire.frames import V2
from adsum.driver.socketdriver import SocketDriver
from adsum.replication.messages import Publish
from adsum.values.names import RESERVED
from tests.support.waiting import DEADLINE, until

from .app import App
from .asgi_client import AsgiClient, asgi_client
from .asgi_poller import AsgiPoller
from .captured_log import Log
from .leak_check import run

BEAT = '[null,"b","phoenix","heartbeat",{}]'
#: The most pieces of work in a turn: a budget, and what some clients have left of their rounds.
MOST = 3 * BUDGET // WORK


class Turns:
    """Counts what happens in each turn of the event loop; use as `async with`."""

    def __init__(self) -> None:
        self.number = 0
        self.counts: Counter[int] = Counter()

    def note(self) -> None:
        """Something happens."""
        self.counts[self.number] += 1

    @property
    def most(self) -> int:
        """The most that happened in one turn."""
        return max(self.counts.values())

    async def __aenter__(self) -> "Turns":
        self._task = asyncio.create_task(self._count())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _count(self) -> None:
        while True:
            self.number += 1
            await asyncio.sleep(0)


class Busy(Channel, topic="busy:{busy}"):
    """Waits once, and never again; all its clients share the counts."""

    turns: Turns
    go: asyncio.Event

    async def join(self, payload: Any) -> None:
        return None

    @on("wait")
    async def wait(self, payload: Any) -> None:
        await self.go.wait()

    @on("work")
    async def work(self, payload: Any) -> dict[str, Any] | None:
        self.turns.note()
        return payload or None

    @on("shout")
    async def shout(self, payload: Any) -> None:
        await self.broadcast("shout", {})
        self.turns.note()

    async def terminate(self, reason: str) -> None:
        self.turns.note()


@pytest.fixture
def busy() -> None:
    Busy.turns, Busy.go = Turns(), asyncio.Event()


# The budget alone.


def test_work_runs_at_once_within_the_budget_and_in_rounds_beyond() -> None:
    async def main() -> None:
        turns, shares = Turns(), [FairShare() for _ in range(20)]
        order = list[int]()

        def work(number: int) -> None:
            turns.note()
            order.append(number)

        async with turns:
            await asyncio.sleep(0)
            for number, share in enumerate(shares):
                for _ in range(100):
                    share.call(WORK, partial(work, number))
            assert len(order) == BUDGET // WORK
            await until(lambda: len(order) == 2000)
        assert turns.most <= BUDGET // WORK
        each = ROUND // WORK
        rounds = [order[at : at + each] for at in range(100, 2000 - 100, each)]
        assert {len(set(one)) for one in rounds[:60]} <= {1, 2}
        unfinished = set(range(BUDGET // WORK // 100, 20))
        assert set(order[BUDGET // WORK :][: 20 * each]) == unfinished

    run(main())


def test_new_client_waits_for_one_round_of_the_others() -> None:
    async def main() -> None:
        shares, done = [FairShare() for _ in range(10)], list[int]()
        for number, share in enumerate(shares):
            for _ in range(1000):
                share.call(WORK, partial(done.append, number))
        await asyncio.sleep(0)
        before = len(done)
        await FairShare().turn(WORK)
        assert len(done) - before <= (10 * ROUND + 2 * BUDGET) // WORK
        await until(lambda: len(done) == 10_000)

    run(main())


def test_large_work_is_done_in_pieces() -> None:
    async def main() -> None:
        turns, share = Turns(), FairShare()
        async with turns:
            for _ in range(20):
                share.call(2 * BUDGET, turns.note)
            await until(lambda: turns.counts.total() == 20)
        assert turns.most == 1

    run(main())


def test_slow_work_ends_the_turn() -> None:
    async def main() -> None:
        turns, share = Turns(), FairShare()

        def work() -> None:
            turns.note()
            share.charge_time(0.005)

        async with turns:
            for _ in range(20):
                share.call(WORK, work)
            await until(lambda: turns.counts.total() == 20)
        assert turns.most <= 2, turns.counts

    run(main())


def test_work_that_raises_blocks_no_other_turn() -> None:
    async def main() -> None:
        complaints, share, other, done = list[Any](), FairShare(), FairShare(), list[None]()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context["exception"]))
        share.charge(BUDGET)
        share.call(WORK, partial([].pop))
        for each in share, other:
            each.call(WORK, partial(done.append, None))
        await until(lambda: len(done) == 2)
        assert [type(one) for one in complaints] == [IndexError]

    asyncio.run(main())


def test_cancelled_turn_blocks_no_other() -> None:
    async def main() -> None:
        share = FairShare()
        share.charge(BUDGET)
        waiting = asyncio.create_task(share.turn(WORK))
        await asyncio.sleep(0)
        waiting.cancel()
        await share.turn(WORK)
        await asyncio.wait([waiting])
        assert waiting.cancelled()

    run(main())


# What clients do.


async def flooded(app: App, flooders: list[AsgiClient], frames: int, bystander: AsgiClient) -> int:
    """The number of frames that were handled until a bystander got its reply."""
    for flooder in flooders:
        for _ in range(frames):
            flooder.send(BEAT)
    before = app.socket.stats()["received_frames_total"]
    await bystander.is_alive()
    return app.socket.stats()["received_frames_total"] - before


@pytest.mark.usefixtures("each_carrier")
def test_flood_delays_other_clients_by_one_round_only() -> None:
    async def main() -> None:
        app = App(Busy)
        async with app.node, asgi_client(app.socket) as bystander:
            flooders = [AsgiClient(app.socket) for _ in range(10)]
            for flooder in flooders:
                await flooder.open()
            for _ in range(3):
                assert await flooded(app, flooders, 2000, bystander) < 2000
            await until(lambda: all(len(one.frames) == 6000 for one in flooders))
            for flooder in flooders:
                await flooder.close()

    run(main())


@pytest.mark.usefixtures("each_carrier")
def test_flood_whose_replies_are_read_is_answered() -> None:
    async def main() -> None:
        app = App(Busy, limits=Limits(outbox=20_000))
        async with app.node, asgi_client(app.socket) as flooder:
            for _ in range(5000):
                flooder.send(BEAT)
            await until(lambda: len(flooder.frames) == 5000 or flooder.closed is not None)
            await flooder.is_alive()

    run(main())


async def flood_without_reading(app: App) -> AsgiClient:
    """A client that sends heartbeats and takes no reply, once all of them were read."""
    flooder = AsgiClient(app.socket)
    await flooder.open()
    flooder.reads.clear()
    for _ in range(20_000):
        flooder.send(BEAT)
    await until(lambda: flooder.unread == 0, "it is neither read on nor given up")
    return flooder


async def is_closed_as_too_slow(flooder: AsgiClient) -> None:
    flooder.reads.set()
    await until(lambda: flooder.closed == 1013)
    await flooder.served()


@pytest.mark.usefixtures("each_carrier")
def test_slow_consumer_that_pauses_briefly_is_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some servers report no end of a connection while frames wait in front of it."""
    monkeypatch.setattr("adsum.channels.connection.GRACE", 0.05)

    async def main() -> None:
        app = App(Busy, limits=Limits(outbox=10_000))
        async with app.node:
            flooder = await flood_without_reading(app)
            await is_closed_as_too_slow(flooder)

    run(main())


@pytest.mark.usefixtures("each_carrier")
def test_slow_consumer_that_reads_again_is_waited_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adsum.channels.connection.GRACE", 0.05)

    async def main() -> None:
        app = App(Busy, limits=Limits(outbox=1000))
        async with app.node:
            connection = Connection(app.socket._shared, Client(), V2)
            for _ in range(60):
                connection.send("0123456789")
            assert connection.full
            await until(lambda: not connection.full)
            connection.outbox.take()
            await until(lambda: connection.full)
            await connection.finish()

    run(main())


@pytest.mark.usefixtures("each_carrier")
@pytest.mark.usefixtures("busy")
def test_replies_to_queued_frames_cause_no_outbox_overflow_for_a_reader() -> None:
    async def main() -> None:
        app = App(Busy, limits=Limits(outbox=20_000))
        async with app.node, Busy.turns, asgi_client(app.socket) as flooder:
            await flooder.join("busy:1")
            flooder.push("1", "w", "busy:1", "wait", {})
            for n in range(90):
                flooder.push("1", f"e{n}", "busy:1", "work", {"text": "x" * 1000})
            await until(lambda: flooder.unread == 0)
            Busy.go.set()
            for n in range(90):
                assert (await flooder.reply(f"e{n}"))["status"] == "ok"
            await flooder.is_alive()

    run(main())


@pytest.mark.usefixtures("each_carrier")
def test_outbox_overflow_by_unread_replies_closes_with_1013(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsum.channels.connection.GRACE", 0.05)

    async def main() -> None:
        app = App(Busy, limits=Limits(outbox=10_000), timeout=0.1)
        async with app.node:
            flooder = await flood_without_reading(app)
            assert len(log.lines) == 1
            assert "does not read" in log.everything
            await is_closed_as_too_slow(flooder)

    run(main())


@pytest.mark.usefixtures("each_carrier")
@pytest.mark.usefixtures("busy")
def test_handlers_without_awaits_share_turns() -> None:
    async def main() -> None:
        app = App(Busy)
        async with app.node, Busy.turns as turns, asgi_client(app.socket) as flooder:
            for n in range(50):
                await flooder.join(f"busy:{n}")
                flooder.push("1", "w", f"busy:{n}", "wait", {})
                for _ in range(50):
                    flooder.push("1", "e", f"busy:{n}", "work", {})
            await until(lambda: flooder.unread == 0)
            Busy.go.set()
            await until(lambda: turns.counts.total() == 2500)
            assert turns.most <= MOST

    run(main())


@pytest.mark.slow
@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("how", ["they go", "disconnect", "the node stops"])
def test_mass_channel_end_takes_many_turns(how: str) -> None:
    async def connect(client: Any) -> None:
        client.id = "crowd"

    async def main() -> None:
        app = App(Busy, connect=connect)
        async with Busy.turns as turns:
            await app.node.start()
            crowd = [AsgiClient(app.socket) for _ in range(10)]
            for one in crowd:
                await one.open()
                for n in range(50):
                    await one.join(f"busy:{n}")
            if how == "they go":
                for one in crowd:
                    one.vanish()
            elif how == "disconnect":
                await app.socket.disconnect("crowd")
            else:
                await app.node.stop()
            await until(lambda: turns.counts.total() == 500)
            assert turns.most <= MOST
            for one in crowd:
                await one.served()
            await app.node.stop()

    run(main())


@pytest.mark.slow
@pytest.mark.usefixtures("busy")
def test_few_broadcasts_to_many_clients_take_one_turn() -> None:
    async def main() -> None:
        app = App(Busy)
        async with app.node, Busy.turns as turns:
            crowd = [AsgiClient(app.socket) for _ in range(300)]
            for one in crowd:
                await one.open()
                await one.join("busy:1")
            for one in crowd[:50]:
                one.push("1", "e", "busy:1", "shout", {})
            await until(lambda: all(len(one.frames) == 51 for one in crowd))
            assert turns.most <= MAX_TOGETHER
            for one in crowd:
                await one.close()

    run(main())


@pytest.mark.usefixtures("busy")
def test_remote_broadcast_is_charged_to_its_link() -> None:
    async def main() -> None:
        app = App(Busy)
        async with app.node, asgi_client(app.socket) as ann, asgi_client(app.socket) as bob:
            for one in ann, bob:
                await one.join("busy:1")
            driver = app.node.driver
            assert isinstance(driver, SocketDriver)
            turns = driver.sockets.turns
            before = turns._left
            message = Publish(f"{RESERVED}channels/text/busy:1", "news", "{}")
            driver.deliver("other", message)
            assert before - turns._left == 2 * 128
            for one in ann, bob:
                assert await one.payload("news") == {}

    run(main())


# Requests.


async def post(client: AsgiPoller, body: bytes) -> int:
    said = await client._request("POST", body, asyncio.Event())
    return int(said["status"])


def test_longpoll_body_is_applied_up_to_the_first_malformed_line(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = list[str]()
    wire = session._wire

    def counted(text: str) -> str | bytes:
        decoded.append(text)
        return wire(text)

    monkeypatch.setattr(session, "_wire", counted)

    async def main() -> None:
        app = App(Busy)
        async with app.node:
            client = AsgiPoller(app.socket)
            await client.begin()
            body = b"\n".join([BEAT.encode(), *[b"x"] * 500_000])
            assert await post(client, body) == 410
            assert app.socket.stats()["received_frames_total"] == len(decoded) == 2
            assert len(log.lines) == 1

    run(main())


@pytest.mark.parametrize("blank", [b"\n", b" \n", b"\r\n", b" "])
def test_longpoll_body_of_blank_lines_is_malformed(blank: bytes, log: Log) -> None:
    async def main() -> None:
        app = App(Busy)
        async with app.node:
            client = AsgiPoller(app.socket)
            await client.begin()
            assert await post(client, blank * (1024 * 1024 // len(blank))) == 200
            assert app.socket.stats()["received_frames_total"] == 0
            assert await post(client, blank + BEAT.encode() + blank) == 200
            assert (await client.get())["messages"] != []
        assert log.lines == []

    run(main())


def test_longpoll_body_of_many_frames_delays_no_other_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "PATIENCE", DEADLINE)  # of a slow machine

    async def main() -> None:
        app = App(Busy)
        async with app.node, asgi_client(app.socket) as bystander:
            client = AsgiPoller(app.socket)
            await client.begin()
            posting = asyncio.create_task(post(client, b"\n".join([BEAT.encode()] * 20_000)))
            handled = list[int]()
            while not posting.done():
                before, seen = app.socket.stats()["received_frames_total"], len(bystander.frames)
                bystander.push(None, "beat", "phoenix", "heartbeat", {})
                # Turns are counted: in a pause, a fast machine has more of them.
                while len(bystander.frames) == seen:  # noqa: ASYNC110
                    await asyncio.sleep(0)
                handled.append(app.socket.stats()["received_frames_total"] - before)
            assert posting.result() == 200
            assert max(handled) <= MOST
            messages = list[str]()
            while len(messages) < 20_000:
                messages += (await client.get())["messages"]
            assert {json.loads(one)[3] for one in messages} == {"phx_reply"}

    run(main())
