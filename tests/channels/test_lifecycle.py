"""The states of a channel: each allowed transition happens, and no other one can."""

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.channels import Channel, RefusedError, on
from adsum.channels.lifecycle import TRANSITIONS, State
from adsum.channels.process import ChannelProcess
from adsum.channels.wire.frames import Frame
from tests.support.effort import examples
from tests.support.waiting import until

from .app import App
from .direct_carrier import Direct
from .leak_check import run

PAIRS = [(old, new) for old in State for new in State]
ALLOWED = [(old, new) for old, new in PAIRS if new in TRANSITIONS[old]]
JOINING, OPEN, ENDING, ENDED, FINISHED = State

#: What a client and its application do, one after the other, and the states of each channel. A step
#: is an event, ``join`` with what the join does, or a pause. At the end the client disconnects.
STORIES: dict[str, tuple[list[str], list[list[State]]]] = {
    "disconnect": (["join", "settle"], [[JOINING, OPEN, ENDING, ENDED, FINISHED]]),
    "disconnect while joining": (["join wait", "settle"], [[JOINING, ENDING, ENDED, FINISHED]]),
    "refused join": (["join refuse", "settle"], [[JOINING, ENDED, FINISHED]]),
    "crashed join": (["join crash", "settle"], [[JOINING, ENDED, FINISHED]]),
    "stop in the join": (["join stop", "settle"], [[JOINING, OPEN, ENDED, FINISHED]]),
    "crash": (["join", "crash", "settle"], [[JOINING, OPEN, ENDED, FINISHED]]),
    "stop": (["join", "stop", "settle"], [[JOINING, OPEN, ENDED, FINISHED]]),
    "leave": (["join", "phx_leave", "settle"], [[JOINING, OPEN, ENDED, FINISHED]]),
    "crashed task": (["join", "spawn", "settle"], [[JOINING, OPEN, ENDED, FINISHED]]),
    "rejoin": (
        ["join", "wait", "settle", "join", "until open"],
        [[JOINING, OPEN, ENDING, ENDED, FINISHED]] * 2,
    ),
    "rejoin while joining": (
        ["join wait", "settle", "join", "until open"],
        [[JOINING, ENDING, ENDED, FINISHED], [JOINING, OPEN, ENDING, ENDED, FINISHED]],
    ),
}


class Room(Channel, topic="room"):
    """Joins, handles and ends as the payload of the join asks."""

    async def join(self, payload: Any) -> None:
        self.story: list[str] = self.client.assigns.setdefault("story", [])
        self.story.append("join")
        self.follow()
        if payload.get("track"):
            self.track("me")
        if payload.get("stop"):
            self.stop()
        if payload.get("wait"):
            await asyncio.sleep(0.005)
        if payload.get("refuse"):
            self.story.append("refused")
            raise RefusedError("no")
        if payload.get("crash"):
            self.story.append("refused")
            raise ValueError("crash")

    @on("stop")
    async def on_stop(self, payload: Any) -> None:
        self.stop()
        self.stop()

    @on("crash")
    async def on_crash(self, payload: Any) -> None:
        raise ValueError("crash")

    @on("wait")
    async def on_wait(self, payload: Any) -> None:
        await asyncio.sleep(0.005)

    @on("spawn")
    async def on_spawn(self, payload: Any) -> None:
        self.spawn(self.on_crash(payload))

    async def terminate(self, reason: str) -> None:
        self.story.append("terminate")
        await asyncio.sleep(0)


@contextmanager
def recorded() -> Iterator[list[tuple[ChannelProcess, State, State]]]:
    """Records the transitions of all channels, also those that raise."""
    transitions: list[tuple[ChannelProcess, State, State]] = []
    enter = ChannelProcess._enter

    def record(self: ChannelProcess, state: State) -> None:
        transitions.append((self, self._state, state))
        enter(self, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ChannelProcess, "_enter", record)
        yield transitions


@pytest.mark.parametrize(("old", "new"), PAIRS, ids=lambda state: state.value)
def test_transition_is_allowed_or_raises(old: State, new: State) -> None:
    async def main() -> None:
        app = App(Room)
        async with app.node:
            client = Direct(app.socket)
            process = ChannelProcess(
                client.connection, Room, {}, Frame("1", "1", "room", "phx_join", {})
            )
            process._state = old
            if (old, new) in ALLOWED:
                process._enter(new)
                assert process._state is new
            else:
                with pytest.raises(RuntimeError, match=f"{old.value} cannot become {new.value}"):
                    process._enter(new)
                assert process._state is old
            await client.connection.finish()

    run(main())


@pytest.mark.parametrize(("steps", "paths"), STORIES.values(), ids=STORIES)
def test_events_lead_through_states(steps: list[str], paths: list[list[State]]) -> None:
    assert _play(steps, []) == paths


def test_every_allowed_transition_happens() -> None:
    happened: set[tuple[State, State]] = set()
    for steps, _ in STORIES.values():
        for path in _play(steps, []):
            happened.update(itertools.pairwise(path))
    assert happened == set(ALLOWED)


@examples(100)
@given(
    st.lists(
        st.sampled_from(
            [
                "join",
                "join track",
                "join refuse",
                "join crash",
                "join stop wait",
                "join wait track",
                "wait",
                "stop",
                "crash",
                "spawn",
                "phx_leave",
                "unknown",
                "settle",
                "sleep",
                "close",
            ]
        ),
        max_size=8,
    )
)
def test_any_order_of_events_ends_each_channel_once(steps: list[str]) -> None:
    story: list[str] = []
    for path in _play(steps, story):
        assert path[0] is JOINING
        assert path[-1] is FINISHED
        assert len(path) == len(set(path))
    assert story.count("join") == story.count("refused") + story.count("terminate")


def _play(steps: list[str], story: list[str]) -> list[list[State]]:
    """The states of each channel of a client; `story` receives the calls of the channels."""

    async def main() -> None:
        app = App(Room)
        async with app.node:
            client = Direct(app.socket)
            client.connection.client.assigns["story"] = story
            for step in steps:
                await _take(client, *step.split())
            await client.connection.finish()

    with recorded() as transitions:
        run(main())
    paths: dict[ChannelProcess, list[State]] = {}
    for process, old, new in transitions:
        path = paths.setdefault(process, [old])
        assert path[-1] is old
        assert new in TRANSITIONS[old], f"{old} to {new}"
        path.append(new)
    return list(paths.values())


async def _take(client: Direct, step: str, *how: str) -> None:
    if step == "settle":
        for _ in range(10):
            await asyncio.sleep(0)
    elif step == "sleep":
        await asyncio.sleep(0.02)
    elif step == "until":
        await until(lambda: client.connection.processes["room"]._state is OPEN)
    elif step == "close":
        client.connection.close(1001, "timeout")
    elif step == "join":
        client.send("1", "1", "room", "phx_join", dict.fromkeys(how, True))
    else:
        client.send(None, "2", "room", step, {})
