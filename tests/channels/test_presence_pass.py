"""A cut of presences is one pass over the followers: shared frames, order, slices and pauses."""

import asyncio
import time
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.channels import Channel
from adsum.channels.flow import slicedpass
from adsum.channels.flow.fairshare import BUDGET
from adsum.channels.flow.slicedpass import SLICE
from adsum.channels.presence import history, sharedtext
from adsum.channels.presence.pace import LONGEST_PAUSE, PAUSE, Pace
from adsum.channels.presence.sharedtext import SharedText
from adsum.channels.wire.frames import V1, V2
from tests.support.effort import examples
from tests.support.waiting import until

from .app import App
from .direct_carrier import Direct
from .leak_check import leak_checked, run
from .phoenix_presence import Presence


class Room(Channel, topic="room"):
    async def join(self, payload: Any) -> None:
        self.follow()


async def joined(app: App, *join_refs: str) -> list[Direct]:
    """Followers that have the state."""
    clients = [Direct(app.socket) for _ in join_refs]
    for client, join_ref in zip(clients, join_refs, strict=True):
        client.send(join_ref, "1", "room", "phx_join", {})
    await until(lambda: all("presence_state" in client.events() for client in clients))
    return clients


def diffs(client: Direct) -> int:
    return client.events().count("presence_diff")


def has_diffs(client: Direct, count: int) -> bool:
    return diffs(client) == count


def track(app: App, key: str) -> None:
    app.presence.track("room", key, {}, owner=None)


async def finished(clients: list[Direct]) -> None:
    for client in clients:
        await client.connection.finish()


@leak_checked
async def test_diff_is_one_frame_for_clients_with_the_same_join_ref() -> None:
    app = App(Room)
    async with app.node:
        clients = await joined(app, "1", "1", "2")
        track(app, "ann")
        await until(lambda: all(diffs(client) == 1 for client in clients))
        one, two, other = [client.written[-1] for client in clients]
        assert one is two
        assert other is not one
        assert [client.frames[-1][0] for client in clients] == ["1", "1", "2"]
        await finished(clients)


@leak_checked
async def test_diff_for_a_client_without_room_is_made_when_its_turn_comes() -> None:
    app = App(Room)
    async with app.node:
        slow, quick = clients = await joined(app, "1", "1")
        slow.room = False
        for n, key in enumerate(("ann", "bob", "eve"), 1):
            track(app, key)
            await until(partial(has_diffs, quick, n))
        assert len(slow.connection.outbox._items or ()) == 1
        slow.resume()
        assert diffs(slow) == 1
        assert sorted(slow.frames[-1][4]["joins"]) == ["ann", "bob", "eve"]
        track(app, "joe")
        await until(lambda: diffs(slow) == 2)
        assert slow.written[-1] is quick.written[-1]
        await finished(clients)


@leak_checked
async def test_diff_is_not_written_past_a_queued_frame() -> None:
    app = App(Room)
    async with app.node:
        slow, quick = clients = await joined(app, "1", "1")
        slow.room = False
        slow.connection.send('[null,null,"room","early",{}]')
        slow.room = True
        track(app, "ann")
        await until(lambda: diffs(quick) == 1)
        assert diffs(slow) == 0
        slow.resume()
        assert slow.events()[-2:] == ["early", "presence_diff"]
        await finished(clients)


@leak_checked
async def test_follower_beyond_the_kept_diffs_is_written_the_state_and_not_the_last_diff(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(history, "REMEMBERED", 3)
    app = App(Room)
    async with app.node:
        slow, quick = clients = await joined(app, "1", "1")
        slow.room = False
        me = app.presence.track("room", "ann", {}, owner=None)
        for n in range(1, 9):
            me.update({"n": n})
            await until(partial(has_diffs, quick, n))
        slow.resume()  # it fell behind, so a state is due at the next cut
        assert slow.events()[-1] == "presence_state"
        me.update({"n": 9})  # in the same cut
        await until(partial(has_diffs, quick, 9))
        await until(lambda: slow.events().count("presence_state") == 2)
        assert diffs(slow) == 0
        me.update({"n": 10})
        await until(lambda: diffs(slow) == 1)
        await finished(clients)


@leak_checked
async def test_frame_pushed_after_a_waiting_source_follows_its_diff() -> None:
    app = App(Room)
    async with app.node:
        slow, quick = clients = await joined(app, "1", "1")
        slow.room = False
        track(app, "ann")
        await until(lambda: diffs(quick) == 1)
        slow.room = True
        await app.socket.broadcast("room", "late", {})
        slow.resume()
        assert slow.events()[-2:] == ["presence_diff", "late"]
        await finished(clients)


@pytest.mark.parametrize(("text", "kept"), [("x", 16), ("x" * 300_000, 4)])
def test_frames_kept_for_one_text_are_bounded(text: str, kept: int) -> None:
    shared = SharedText("room", "presence_diff", text)
    for n in range(100):
        assert shared.frame(V2, n).wire == V2.message(n, None, "room", "presence_diff", text)
    assert len(shared._frames) == kept
    assert kept <= sharedtext._MAX_FRAMES
    assert shared.frame(V2, 0) is shared.frame(V2, 0)
    assert shared.frame(V1, 0).wire == V1.message(0, None, "room", "presence_diff", text)


@pytest.mark.slow
@leak_checked
async def test_cut_for_many_takes_turns_and_later_changes_come_in_the_next_one() -> None:
    app = App(Room)
    async with app.node:
        clients = await joined(app, *["1"] * (6 * SLICE))
        track(app, "ann")
        turns, before, most = 0, 0, 0
        while before < len(clients):
            await asyncio.sleep(0)
            count = sum(map(diffs, clients))
            most, before = max(most, count - before), count
            turns += 1
            if 0 < count < len(clients):
                track(app, f"k{turns}")
        assert most <= 3 * SLICE
        names = sorted(app.presence.list("room"))
        assert len(names) > 1
        await until(lambda: all(diffs(client) >= 2 for client in clients))
        for client in clients:
            presence = Presence("1")
            for frame in client.frames:
                presence.take(frame)
            assert sorted(presence.state) == names
        await finished(clients)


class Clocks:
    """The CPU time of the event loop's thread, and the time, both moved by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pace: Pace | None = None) -> None:
        self.cpu = self.time = 0.0
        self.cuts: list[float] = []
        self.pace = pace or Pace(lambda: self.cuts.append(self.time))
        monkeypatch.setattr(self.pace, "cpu_time", lambda: self.cpu)
        monkeypatch.setattr(self.pace, "now", lambda: self.time)

    def pass_time(self, seconds: float, *, cpu: float) -> None:
        """Let time pass, in a part of which the thread ran."""
        self.time += seconds
        self.cpu += cpu

    @property
    def pause(self) -> float:
        """Seconds from now to the next cut."""
        return self.pace._next_cut_at - self.time


@leak_checked
async def test_pause_after_a_cut_is_its_work_and_at_least_the_shortest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Pace(lambda: None).cpu_time is time.thread_time
    clocks = Clocks(monkeypatch)
    pace = clocks.pace
    for before, work, expected in (
        (0.0, 0.0, PAUSE),
        (0.025, 0.1, 0.125),
        (0.025, 9.0, LONGEST_PAUSE),
    ):
        pace.hold(before)
        pace.note(work, queued=False)
        pace.release()
        assert clocks.pause == pytest.approx(expected)
    pace.hold(0.0)
    pace.schedule()
    assert pace._timer is None  # no cut while one is being sent
    clocks.pass_time(2.0, cpu=0.0)
    pace.release()
    assert not clocks.cuts
    assert pace._timer is not None
    pace.cancel()


@leak_checked
async def test_pause_after_queued_frames_is_the_cpu_time_until_all_were_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clocks = Clocks(monkeypatch)
    pace = clocks.pace
    clocks.pass_time(5.0, cpu=5.0)  # before the cut
    pace.hold(0.25)
    pace.note(0.0, queued=True)
    clocks.pass_time(0.5, cpu=0.125)  # other programs had the core
    pace.release()
    await until(lambda: not pace._held)
    assert clocks.pause == pytest.approx(0.375)


@leak_checked
async def test_pause_of_a_feed_is_the_cpu_time_of_its_pass_on_a_busy_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = App(Room)
    async with app.node:
        clients = await joined(app, "1", "1", "1")
        pace = app.socket._shared.feeds._feeds["room"]._pace
        await until(lambda: not pace._held)
        clocks = Clocks(monkeypatch, pace)
        write = Direct.write

        def slow_write(client: Direct, frame: Any) -> bool:
            clocks.pass_time(10.0, cpu=0.0625)
            return write(client, frame)

        monkeypatch.setattr(Direct, "write", slow_write)
        clocks.time = 1e6  # the pause after the state is over
        track(app, "ann")
        await until(lambda: all(diffs(client) == 1 for client in clients))
        assert clocks.pause == pytest.approx(3 * 0.0625)
        await finished(clients)


@leak_checked
async def test_change_on_a_quiet_topic_is_written_within_two_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = App(Room)
    async with app.node:
        clients = await joined(app, "1", "1", "1")
        pace = app.socket._shared.feeds._feeds["room"]._pace
        await until(lambda: not pace._held)
        clocks = Clocks(monkeypatch, pace)
        for n in range(1, 4):
            clocks.time += 1e6  # the pause after the last cut is over
            track(app, f"k{n}")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert [diffs(client) for client in clients] == [n, n, n]
        await finished(clients)


# Any order of sends, any speed of clients.

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["push", "beat", "broadcast", "burst", "track", "stall", "resume", "turn"]),
        st.integers(0, 3),
    ),
    min_size=5,
    max_size=60,
)


class Model:
    """The frames that each client must be sent, without presences, and the names that it knows."""

    def __init__(self, app: App, clients: list[Direct]) -> None:
        self.app = app
        self.clients = clients
        self.expected: list[list[Any]] = [[] for _ in clients]
        self.serial = 0

    async def step(self, what: str, which: int) -> None:
        self.serial += 1
        client, expected, serial = self.clients[which], self.expected[which], self.serial
        match what:
            case "push":
                client.connection.processes["room"].push("push", {"n": serial})
                expected.append(serial)
            case "beat":
                client.send(None, serial, "phoenix", "heartbeat", {})
                expected.append(serial)
            case "broadcast" | "burst":
                numbers = [serial * 1000 + n for n in range(1 if what == "broadcast" else 3)]
                calls = [self.app.socket.broadcast("room", "said", {"n": n}) for n in numbers]
                await asyncio.gather(*calls)
                for one in self.expected:
                    one.extend(numbers)
            case "track":
                track(self.app, f"k{serial}")
            case "stall":
                client.room = False
            case "resume":
                client.resume()
            case "turn":
                await asyncio.sleep(0)


def numbers(client: Direct) -> list[Any]:
    """The frames without those of presences and of the join."""
    found = [f for f in client.frames if not f[3].startswith("presence") and f[1] != "1"]
    return [frame[1] if frame[2] == "phoenix" else frame[4]["n"] for frame in found]


@examples(60)
@given(STEPS)
def test_clients_of_any_speed_are_sent_everything_in_order(steps: list[tuple[str, int]]) -> None:
    async def main() -> None:
        app = App(Room)
        async with app.node:
            clients = await joined(app, "1", "1", "2", "3")
            model = Model(app, clients)
            for step in steps:
                await model.step(*step)
            for client in clients:
                client.resume()
            for _ in range(20):
                await asyncio.sleep(0)
                app.socket.flush_presences()
            for client, expected in zip(clients, model.expected, strict=True):
                assert numbers(client) == expected
                presence = Presence(client.frames[0][0])
                for frame in client.frames:
                    presence.take(frame)
                assert sorted(presence.state) == sorted(app.presence.list("room"))
            await finished(clients)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slicedpass, "SLICE", 1)
        patch.setattr(slicedpass, "WRITTEN", BUDGET)  # a turn for each client
        run(main())
