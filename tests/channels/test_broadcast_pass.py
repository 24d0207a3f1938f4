"""A broadcast is one pass over the clients of a topic: shared bytes, order, and slices."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from adsum.channels import Channel, Limits, Socket, intercept
from adsum.channels import broadcasts as broadcasts_module
from adsum.channels.broadcasts import Broadcasts
from adsum.channels.deliveries import MAX_TOGETHER, MAX_TOGETHER_SIZE
from adsum.channels.flow.slicedpass import SLICE
from adsum.channels.wire.frames import V1, V2, V2_TEXT, Serializer
from adsum.channels.wire.prepared import Prepared, PreparedSeries
from adsum.replication.messages import Publish
from adsum.values.names import RESERVED
from tests.support.waiting import until

from .app import App
from .captured_log import Log
from .direct_carrier import Direct
from .leak_check import leak_checked

#: Clients of a topic that is served in slices.
MANY = 6 * SLICE


class Room(Channel, topic="room"):
    async def join(self, payload: Any) -> None:
        self.push("before", {})


class Filtering(Channel, topic="filtered"):
    @intercept("said")
    async def filter(self, payload: Any) -> Any:
        return {**payload, "filtered": True}


async def joined(socket: Socket, count: int, topic: str = "room") -> list[Direct]:
    """Clients of a topic, with the frames of their joins dropped."""
    clients = [Direct(socket) for _ in range(count)]
    for client in clients:
        client.send("1", "1", topic, "phx_join", {})
    broadcasts = socket._shared.broadcasts
    await until(lambda: broadcasts.recipients(topic) == count)
    for client in clients:
        client.frames.clear()
        client.written.clear()
    return clients


def said(client: Direct) -> list[Any]:
    """The numbers of the broadcasts that a client was sent, in order."""
    return [frame[4]["n"] for frame in client.frames if frame[3] == "said"]


async def finished(clients: list[Direct]) -> None:
    for client in clients:
        await client.connection.finish()


def in_slices(part: Callable[[App, list[Direct]], Awaitable[None]]) -> Callable[[], None]:
    """A test with so many clients of one topic that a broadcast takes several turns."""

    @leak_checked
    async def test() -> None:
        app = App(Room)
        async with app.node:
            clients = await joined(app.socket, MANY)
            await part(app, clients)
            await finished(clients)

    return test


@leak_checked
async def test_broadcast_is_written_before_the_call_suspends_and_shares_its_bytes() -> None:
    app = App(Room)
    async with app.node:
        clients = await joined(app.socket, 3)
        call = app.socket.broadcast("room", "said", {"n": 1})
        sending = asyncio.ensure_future(call)
        await asyncio.sleep(0)
        assert [said(client) for client in clients] == [[1]] * 3
        (frame,) = {id(client.written[0]): client.written[0] for client in clients}.values()
        assert isinstance(frame, Prepared)
        await sending
        await finished(clients)


@leak_checked
async def test_frames_written_at_once_are_counted() -> None:
    app = App(Room)
    async with app.node:
        (client,) = clients = await joined(app.socket, 1)
        outbox = client.connection.outbox
        before = outbox.frames, outbox.sent
        await app.socket.broadcast("room", "said", {"n": 1})
        assert outbox.frames == before[0] + 1
        assert outbox.sent == before[1] + len(client.written[0])
        await finished(clients)


@leak_checked
async def test_broadcast_reaches_the_others_if_the_transport_of_one_client_fails(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App(Room)
    async with app.node:
        one, broken, other = clients = await joined(app.socket, 3)

        def fail(frame: object) -> bool:
            raise RuntimeError("the handler is closed")

        monkeypatch.setattr(broken, "write", fail)
        await app.socket.broadcast("room", "said", {"n": 1})
        await app.socket.broadcast("room", "said", {"n": 2})
        assert said(one) == said(other) == [1, 2]
        assert [client.given_up for client in clients] == [False, True, False]
        assert log.everything.count("could not be written") == 1
        await finished(clients)


@leak_checked
async def test_broadcast_to_a_client_without_room_is_queued_and_keeps_its_order() -> None:
    app = App(Room)
    async with app.node:
        slow, quick = clients = await joined(app.socket, 2)
        slow.room = False
        await app.socket.broadcast("room", "said", {"n": 1})
        assert (said(slow), said(quick)) == ([], [1])
        slow.room = True  # the transport has room, but a frame waits
        await app.socket.broadcast("room", "said", {"n": 2})
        assert said(slow) == []
        slow.resume()
        await app.socket.broadcast("room", "said", {"n": 3})
        assert said(slow) == said(quick) == [1, 2, 3]
        assert slow.written == quick.written  # the same objects
        await finished(clients)


@leak_checked
async def test_each_version_is_sent_its_own_frame_encoded_once() -> None:
    app = App(Room)
    async with app.node:
        versions: list[Serializer] = [V1, V2, V2_TEXT, V1, V2, V2_TEXT]
        clients = [Direct(app.socket, serializer) for serializer in versions]
        join = {"topic": "room", "event": "phx_join", "payload": {}, "ref": "1", "join_ref": "1"}
        for client, serializer in zip(clients, versions, strict=True):
            if serializer is V1:
                client.connection.receive(json.dumps(join))
            else:
                client.send("1", "1", "room", "phx_join", {})
        await until(lambda: app.socket._shared.broadcasts.recipients("room") == 6)
        for client in clients:
            client.written.clear()
        await app.socket.broadcast("room", "said", {"n": 1})
        frames = [client.written[0] for client in clients]
        assert frames[:3] == frames[3:]
        assert len({id(frame) for frame in frames}) == 3
        await app.socket.broadcast("room", "said", b"12")
        counts = [len(client.written) for client in clients]
        assert counts == [1, 2, 1, 1, 2, 1]  # bytes reach version 2 alone, and not by polling
        await finished(clients)


@leak_checked
async def test_overflow_by_broadcasts_closes_a_client_that_does_not_read() -> None:
    app = App(Room, limits=Limits(outbox=1000))
    async with app.node:
        slow, quick = clients = await joined(app.socket, 2)
        slow.room = False
        for n in range(30):
            await app.socket.broadcast("room", "said", {"n": n})
        closing = slow.connection.closing
        assert closing is not None
        assert closing.code == 1013
        assert said(quick) == list(range(30))
        await finished(clients)


@leak_checked
async def test_intercepted_broadcast_is_filtered_and_others_are_shared() -> None:
    app = App(Filtering)
    async with app.node:
        clients = await joined(app.socket, 2, "filtered")
        await app.socket.broadcast("filtered", "said", {"n": 1})
        await until(lambda: all(said(client) == [1] for client in clients))
        assert all(client.frames[0][4]["filtered"] for client in clients)
        await app.socket.broadcast("filtered", "plain", {"n": 2})
        assert clients[0].written[-1] is clients[1].written[-1]
        await finished(clients)


@leak_checked
async def test_frame_pushed_during_a_source_follows_its_frame() -> None:
    app = App(Room)
    async with app.node:
        (client,) = clients = await joined(app.socket, 1)
        connection = client.connection

        class Nested:
            def frame(self) -> str:
                assert not connection.write('[null,null,"room","second",{}]')
                connection.send('[null,null,"room","second",{}]')
                return '[null,null,"room","first",{}]'

        connection.outbox.put_source(Nested())
        assert client.events() == ["first", "second"]
        await finished(clients)


# Many clients.


@in_slices
async def test_broadcast_to_many_takes_turns_of_the_loop(app: App, clients: list[Direct]) -> None:
    sending = asyncio.ensure_future(app.socket.broadcast("room", "said", {"n": 1}))
    turns, most, before = 0, 0, sum(map(len, map(said, clients)))  # an eager task has begun
    while not sending.done():
        await asyncio.sleep(0)
        count = sum(map(len, map(said, clients)))
        most, before = max(most, count - before), count
        turns += 1
    assert before == MANY
    assert most <= 3 * SLICE
    assert turns > 2


@in_slices
async def test_broadcasts_on_one_topic_are_sent_in_the_order_of_the_calls(
    app: App, clients: list[Direct]
) -> None:
    sending = [
        asyncio.ensure_future(app.socket.broadcast("room", "said", {"n": n})) for n in range(5)
    ]
    await asyncio.sleep(0)
    assert said(clients[0]) == [0]  # the others wait for the end of the first
    await asyncio.gather(*sending)
    assert all(said(client) == [0, 1, 2, 3, 4] for client in clients)


async def _say(app: App, count: int, **payload: Any) -> None:
    """Send broadcasts at once: the first begins, the others wait for it."""
    await asyncio.gather(
        *(app.socket.broadcast("room", "said", {"n": n, **payload}) for n in range(count))
    )


def series(client: Direct) -> list[int]:
    """The number of frames in each piece that a client was written."""
    return [len(each.frames) if isinstance(each, PreparedSeries) else 1 for each in client.written]


@in_slices
async def test_broadcasts_that_waited_are_written_together_once_for_all_clients(
    app: App, clients: list[Direct]
) -> None:
    await _say(app, MAX_TOGETHER + 3)
    assert series(clients[0]) == [1, MAX_TOGETHER, 2]
    assert all(client.written == clients[0].written for client in clients)  # the same objects
    together = clients[0].written[1]
    assert isinstance(together, PreparedSeries)
    assert together.plain() == b"".join(frame.plain() for frame in together.frames)
    assert together.compressed(9) == b"".join(frame.compressed(9) for frame in together.frames)
    assert len(together) == sum(len(frame) for frame in together.frames)


@in_slices
async def test_broadcasts_that_are_written_together_are_bounded_in_bytes(
    app: App, clients: list[Direct]
) -> None:
    await _say(app, 5, text="x" * (MAX_TOGETHER_SIZE // 2 - 100))
    assert series(clients[0]) == [1, 2, 2]
    await _say(app, 3, text="x" * (MAX_TOGETHER_SIZE + 1))
    assert series(clients[0])[3:] == [1, 1, 1]


@in_slices
async def test_client_without_room_is_queued_each_broadcast_that_waited(
    app: App, clients: list[Direct]
) -> None:
    slow = clients[-1]
    slow.room = False
    await _say(app, 4)
    assert said(slow) == []
    slow.resume()
    assert said(slow) == said(clients[0]) == [0, 1, 2, 3]
    assert (series(slow), series(clients[0])) == ([1, 1, 1, 1], [1, 3])


@in_slices
async def test_sender_is_excluded_from_a_broadcast_among_those_that_waited(
    app: App, clients: list[Direct]
) -> None:
    process = clients[-1].connection.processes["room"]
    broadcasts = app.socket._shared.broadcasts
    own = broadcasts.broadcast("room", "said", {"n": "own"}, process)
    await asyncio.gather(app.socket.broadcast("room", "said", {"n": 5}), own, _say(app, 2))
    assert said(clients[-1]) == [5, 0, 1]
    assert said(clients[0]) == [5, "own", 0, 1]
    assert series(clients[0]) == [1, 3]


@in_slices
async def test_channels_that_differ_are_not_sent_broadcasts_together(
    app: App, clients: list[Direct]
) -> None:
    late, broadcasts = clients[-1], app.socket._shared.broadcasts
    process = late.connection.processes["room"]
    broadcasts.unsubscribe(process)
    sending = [
        asyncio.ensure_future(app.socket.broadcast("room", "said", {"n": n})) for n in (0, 1)
    ]
    await asyncio.sleep(0)
    broadcasts.subscribe(process)
    await asyncio.gather(*sending, app.socket.broadcast("room", "said", {"n": 2}))
    assert said(late) == [2]
    assert series(clients[0]) == [1, 1, 1]


@in_slices
async def test_filter_of_a_broadcast_among_those_that_waited(
    app: App, clients: list[Direct]
) -> None:
    filtered = []
    process = clients[-1].connection.processes["room"]
    process.intercepts = {"said": "filter"}
    process.intercept_later = lambda event, payload: filtered.append(payload)  # type: ignore[method-assign]
    await _say(app, 4)
    assert (said(clients[-1]), len(filtered)) == ([], 4)


@in_slices
async def test_client_that_carries_no_bytes_is_sent_the_texts_among_those_that_waited(
    app: App, clients: list[Direct]
) -> None:
    clients[-1].connection.serializer = V2_TEXT
    await asyncio.gather(
        *(app.socket.broadcast("room", "said", each) for each in ({"n": 0}, {"n": 1}, b"x"))
    )
    assert said(clients[-1]) == [0, 1]
    assert clients[-1].connection._logged_bytes  # of the third
    assert len(clients[0].frames) == 3


@leak_checked
async def test_broadcasts_of_one_turn_are_written_together_in_the_next() -> None:
    app = App(Room)
    async with app.node:
        clients = await joined(app.socket, 3)
        await _say(app, 4)
        assert series(clients[0]) == [1, 3]
        await _say(app, 1)
        assert said(clients[0]) == [0, 1, 2, 3, 0]
        await finished(clients)


@in_slices
async def test_mark_is_acknowledged_once_the_broadcasts_before_it_have_passed(
    app: App, clients: list[Direct]
) -> None:
    marks = Broadcasts.of(app.node)._acknowledgements._marks
    text = Publish(f"{RESERVED}channels/text/room", "said", '{"n":1}')
    for message in (text, Publish(f"{RESERVED}channels/mark", "1", "{}")):
        app.node.driver.deliver("other", message)
    assert marks
    await until(lambda: not marks)
    assert all(said(client) == [1] for client in clients)


@in_slices
async def test_push_after_a_broadcast_follows_it_at_every_client(
    app: App, clients: list[Direct]
) -> None:
    await app.socket.broadcast("room", "said", {"n": 1})
    for client in clients:
        process = client.connection.processes["room"]
        process.push("after", {})
        assert client.events() == ["said", "after"]


@in_slices
async def test_channel_that_leaves_during_a_pass_is_sent_nothing(
    app: App, clients: list[Direct]
) -> None:
    sending = asyncio.ensure_future(app.socket.broadcast("room", "said", {"n": 1}))
    await asyncio.sleep(0)
    assert (said(clients[0]), said(clients[-1])) == ([1], [])
    clients[-1].connection.processes["room"].unsubscribe()
    await sending
    assert said(clients[-1]) == []
    assert all(said(client) == [1] for client in clients[:-1])


@in_slices
async def test_channel_that_joins_during_a_pass_is_sent_later_broadcasts_alone(
    app: App, clients: list[Direct]
) -> None:
    sending = [
        asyncio.ensure_future(app.socket.broadcast("room", "said", {"n": n})) for n in (1, 2)
    ]
    await asyncio.sleep(0)
    late = Direct(app.socket)
    late.send("1", "1", "room", "phx_join", {})
    await until(lambda: app.socket._shared.broadcasts.recipients("room") == MANY + 1)
    last = app.socket.broadcast("room", "said", {"n": 3})
    await asyncio.gather(*sending, last)
    assert said(late) == [3]
    assert all(said(client) == [1, 2, 3] for client in clients)
    await finished([late])


@in_slices
async def test_cancelled_broadcast_reaches_all_clients(app: App, clients: list[Direct]) -> None:
    sending = asyncio.ensure_future(app.socket.broadcast("room", "said", {"n": 1}))
    await asyncio.sleep(0)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await until(lambda: all(said(client) == [1] for client in clients))


@in_slices
async def test_stop_releases_broadcasts_that_wait(app: App, clients: list[Direct]) -> None:
    sending = [
        asyncio.ensure_future(app.socket.broadcast("room", "said", {"n": n})) for n in range(3)
    ]
    await asyncio.sleep(0)
    app.socket._shared.broadcasts.closed()
    await asyncio.wait_for(asyncio.gather(*sending), 10)
    assert not app.socket._shared.broadcasts._unfinished
    clients[0].written.clear()
    await app.socket.broadcast("room", "said", {"n": 4})
    assert series(clients[0]) == [1]  # later ones are sent


@in_slices
async def test_broadcasts_of_a_member_that_wait_are_bounded(
    app: App, clients: list[Direct]
) -> None:
    waiting = Broadcasts.of(app.node)._unfinished
    message = Publish(f"{RESERVED}channels/text/room", "said", '{"n":1}')
    count = broadcasts_module.MAX_UNFINISHED + 20
    for _ in range(count):
        app.node.driver.deliver("other", message)
        assert len(waiting) <= broadcasts_module.MAX_UNFINISHED
    await until(lambda: not waiting)
    assert all(len(client.frames) == count for client in clients)
