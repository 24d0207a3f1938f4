"""Loss and renewal of connections to real servers."""

import asyncio
import contextlib
import random
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from redis import Redis

from adsum.bus.busreconnector import BusReconnector
from adsum.bus.bussession import MAX_UNANSWERED, PING_INTERVAL
from adsum.bus.redisclient import RedisClient
from tests.support.bus_servers import BusServer, NatsServer, RedisServer, running
from tests.support.waiting import assert_within, eventually, until

from .recorder import MakeServer, Recorder, alternates, connected, exchange, make

pytestmark = pytest.mark.processes


def losses(events: Recorder, count: int) -> bool:
    """Whether the connection was lost so many times."""
    return len(events.losses) == count


def reconnects(events: Recorder, count: int) -> bool:
    """Whether the connection was renewed so many times."""
    return len(events.changes) == 1 + 2 * count


def test_killed_server_is_one_loss_and_its_restart_one_connection(server: BusServer) -> None:
    async def main() -> None:
        async with (
            connected(server.url, "one") as (sender, events),
            connected(server.url, "two") as (_, receiver),
        ):
            server.kill()
            await until(lambda: events.losses and receiver.losses, "both losses")
            assert not sender.connected
            sender.publish("two", b"lost")
            sender.publish("two", b"lost", probe="lost")
            assert (sender.dropped_total, sender.backlog) == (2, 0)
            server.start()
            await until(lambda: len(events.changes) == len(receiver.changes) == 3, "reconnects")
            await exchange(sender, "two", receiver, b"again")
            assert b"lost" not in receiver.received
            assert events.refused == []
            assert alternates(events.changes)

    asyncio.run(main())


def test_cancelled_connect_leaves_no_connection(server: BusServer) -> None:
    async def main() -> None:
        async with connected(server.url, "subject"):
            before = asyncio.all_tasks()
        start = time.monotonic()
        async with connected(server.url, "subject"):
            takes = time.monotonic() - start
        for part in range(40):
            client = make(server.url, Recorder())
            opening = asyncio.create_task(client.connect(["subject"]))
            await asyncio.sleep(takes * part / 40)  # one of them cancels an answer that is there
            if opening.cancel():
                await asyncio.wait([opening])
            else:
                await client.close()
        await until(lambda: asyncio.all_tasks() <= before, "the end of all tasks")
        async with connected(server.url) as (observer, events):

            async def refused() -> bool:
                """Whether nobody subscribes: the server notices ends of other connections later."""
                observer.publish("subject", b"", probe="nobody")
                return bool(events.refused)

            await until(refused, "the refusal")

    asyncio.run(main())


def test_all_subscriptions_are_in_place_when_the_reconnect_is_reported(server: BusServer) -> None:
    async def main() -> None:
        async with (
            connected(server.url) as (sender, sending),
            connected(server.url, "kept", "ended") as (client, events),
        ):
            client.subscribe("added")
            client.unsubscribe("ended")
            server.kill()
            await until(lambda: events.losses and sending.losses, "both losses")
            client.subscribe("away")
            server.start()
            await until(lambda: sender.connected, "the reconnect of the sender")
            await until(lambda: client.connected, "the reconnect of the receiver")
            for subject in ("kept", "added", "away", "ended"):
                sender.publish(subject, subject.encode(), probe=subject)
            await until(lambda: len(events.received) == 3 and sending.refused, "the messages")
            assert events.received == [b"kept", b"added", b"away"]
            assert sending.refused == ["ended"]

    asyncio.run(main())


def test_publish_inside_of_the_report_of_a_reconnect_is_sent(server: BusServer) -> None:
    async def main() -> None:
        async with connected(server.url) as (sender, events):
            server.kill()
            await until(lambda: events.losses, "the loss")
            events.when_connected = lambda: sender.publish("hello", b"first", probe="hello")
            server.start()
            await until(lambda: events.refused, "the refusal, as nobody subscribes")

    asyncio.run(main())


def test_many_restarts_are_many_pairs_of_loss_and_connection(server: BusServer) -> None:
    async def main() -> None:
        async with connected(server.url, "one") as (client, events):
            for count in range(1, 5):
                server.restart()
                await until(partial(losses, events, count), "the loss")
                await until(lambda: client.connected, "the reconnect")
            assert alternates(events.changes)
            await exchange_with_itself(server, client, events)

    asyncio.run(main())


async def exchange_with_itself(server: BusServer, client: BusReconnector, events: Recorder) -> None:
    """Let another client send to this one."""
    async with connected(server.url) as (sender, _):
        client.subscribe("self")
        await exchange(sender, "self", events)


def test_hung_server_is_a_loss_although_its_connection_stays_open(server: BusServer) -> None:
    async def main() -> float:
        async with connected(server.url, "one") as (client, events):
            server.pause()
            began = time.monotonic()
            # More than the sockets hold, so that the connection could not be closed in order.
            for _ in range(60):
                client.publish("one", bytes(100_000))
            await until(lambda: events.losses, "the loss")
            taken = time.monotonic() - began
            server.resume()
            await until(lambda: client.connected, "the reconnect")
            await exchange_with_itself(server, client, events)
            return taken

    # One more for a busy machine; `down_after` has to be longer, see docs/configuration.md.
    assert_within((MAX_UNANSWERED + 1) * PING_INTERVAL + 1.0, lambda: asyncio.run(main()))


def test_blocked_loop_is_no_hung_server(server: BusServer) -> None:
    async def main() -> None:
        async with connected(server.url, "one") as (client, events):
            time.sleep(6)  # noqa: ASYNC251  # an application that blocks the loop
            await exchange_with_itself(server, client, events)
            assert events.changes == ["connected"]

    asyncio.run(main())


def test_slow_consumer_is_disconnected_by_the_server_and_receives_again(
    make_server: MakeServer,
) -> None:
    server = make_server(pending=2_000_000)

    def flood(stop: threading.Event) -> None:
        async def main() -> None:
            async with connected(server.url) as (sender, _):
                while not stop.is_set():
                    sender.publish("data", bytes(200_000))
                    await asyncio.sleep(0)

        asyncio.run(main())

    async def main() -> None:
        stop = threading.Event()
        thread = threading.Thread(target=flood, args=(stop,))
        async with connected(server.url, "data") as (client, events):
            thread.start()
            try:
                await until(lambda: events.received, "the first messages")
                # An application that blocks the loop.
                eventually(lambda: server.slow_consumer in server.log, "the server disconnects it")
            finally:
                stop.set()
                thread.join()
            await until(lambda: events.losses, "the loss")
            await until(lambda: client.connected, "the reconnect")
            assert alternates(events.changes)
            await exchange_with_itself(server, client, events)

    asyncio.run(main())


def test_other_server_of_the_setting_is_tried_at_once(make_server: MakeServer) -> None:
    first = make_server()
    second = (
        make_server(routes=[first.route_port]) if isinstance(first, NatsServer) else make_server()
    )
    url = f"{first.url},{second.url}"

    async def main() -> None:
        async with connected(url, "one") as (client, events):
            used, other = (first, second) if client.server == first.url else (second, first)
            used.kill()
            await until(lambda: len(events.changes) == 3, "the reconnect")
            print(f"other server after {events.times[2] - events.times[1]:.4f} s")
            assert client.server == other.url
            await exchange_with_itself(other, client, events)

    asyncio.run(main())


def test_attempts_wait_shortly_at_first_and_two_seconds_at_most() -> None:
    url = "redis://a,redis://b,redis://c"
    client = RedisClient(url, Recorder(), "node")
    client._rng = random.Random(1)
    attempts = client._attempts()
    first = [next(attempts) for _ in range(3)]
    assert [(at, bool(wait)) for at, wait in first] == [(1, False), (2, False), (0, True)]
    waits = [next(attempts)[1] for _ in range(300)]
    assert 0.05 <= first[2][1] <= 0.1
    assert waits[0] == 2 * first[2][1]
    assert waits[1] == waits[2] == 0
    assert max(waits) == waits[-3] == 2


def test_promoted_replica_is_used_after_the_master_died(tmp_path: Path) -> None:
    master = RedisServer(tmp_path)
    replica = RedisServer(tmp_path, replica_of=master)
    url = f"{replica.url},{master.url}"

    async def main() -> None:
        async with connected(url, "one") as (client, events):
            assert client.server == master.url
            master.kill()
            await until(lambda: events.losses, "the loss")
            assert not client.connected
            with contextlib.closing(Redis(port=replica.port)) as admin:
                admin.replicaof("NO", "ONE")
            await until(lambda: client.connected, "the reconnect")
            assert client.server == replica.url
            await exchange_with_itself(replica, client, events)

    with running(master, replica):
        asyncio.run(main())


def test_demoted_master_is_left_although_it_still_answers(tmp_path: Path) -> None:
    one, two = RedisServer(tmp_path), RedisServer(tmp_path)

    async def main() -> None:
        async with connected(f"{one.url},{two.url}", "a") as (client, events):
            assert client.server == one.url
            with contextlib.closing(Redis(port=one.port)) as admin:
                admin.replicaof("127.0.0.1", str(two.port))
            await until(lambda: client.connected and client.server == two.url, "the new master")
            assert "not the master" in events.losses[0]

    with running(one, two):
        asyncio.run(main())


def test_flush_of_redis_loses_nothing(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)

    async def main() -> None:
        async with (
            connected(server.url) as (sender, _),
            connected(server.url, "one") as (_, events),
        ):
            with contextlib.closing(Redis(port=server.port)) as admin:
                admin.flushall()
            await exchange(sender, "one", events)
            assert events.changes == ["connected"]

    with running(server):
        asyncio.run(main())


@pytest.mark.parametrize("kind", ["pubsub", "normal"])
def test_loss_of_either_connection_of_redis_is_one_loss(tmp_path: Path, kind: str) -> None:
    server = RedisServer(tmp_path)

    async def main() -> None:
        async with (
            connected(server.url, "one") as (_, events),
            connected(server.url) as (sender, _),
        ):
            with contextlib.closing(Redis(port=server.port)) as admin:
                admin.client_kill_filter(_type=kind, skipme=True)
                await until(lambda: len(events.changes) == 3, "the reconnect")
                await until(lambda: len(admin.client_list()) >= 5, "both connections")
                assert len(admin.client_list()) == 5
            await exchange(sender, "one", events)
            assert alternates(events.changes)
            assert len(events.losses) == 1

    with running(server):
        asyncio.run(main())


def test_close_while_disconnected_ends_the_attempts(server: BusServer) -> None:
    async def main() -> None:
        handler = Recorder()
        client = make(server.url, handler)
        await client.connect(["inbox"])
        server.kill()
        await until(lambda: handler.losses, "the loss")
        await client.close()
        server.start()
        assert len(asyncio.all_tasks()) == 1
        assert len(handler.changes) == 2

    asyncio.run(main())


def test_sockets_and_tasks_do_not_accumulate_over_reconnects(server: BusServer) -> None:
    async def main() -> None:
        async with connected(server.url, "one") as (client, events):
            await asyncio.sleep(0.1)
            before = len(asyncio.all_tasks())
            for count in range(1, 4):
                server.restart()
                await until(partial(reconnects, events, count), "the reconnect")
            await until(lambda: len(asyncio.all_tasks()) == before, "old tasks have ended")
            assert client.connected

    asyncio.run(main())
