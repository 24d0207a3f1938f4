"""Whatever a client sends, in whatever order: the server lives, and nobody else is harmed."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adsum.channels import Limits
from tests.support.effort import examples
from tests.support.waiting import until

from .asgi_client import AsgiClient, asgi_client
from .leak_check import run
from .served_app import ServedApp, served_app
from .ws_client import ws_client

Frames = list[str | bytes]

refs = st.sampled_from(["1", "2", "1", "2", None, 3, "", "é"])
topics = st.sampled_from(["room:1", "room:1", "room:1", "room:2", "phoenix", "nope:1"])
EVENTS = (
    "phx_join phx_join phx_join phx_leave heartbeat echo crash halt track update untrack shout "
    "whisper mute refuse phx_reply phx_close phx_error presence_state unknown tell"
)
events = st.sampled_from(EVENTS.split())
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner)
)
payloads = (
    st.sampled_from(
        [
            {"track": "eve", "meta": {"a": 1}},
            {"track": "eve"},
            {"track": "bob"},
            {"track": ""},
            {"track": "\ud800"},
            {"follow": True},
            {"refuse": "no"},
            {"refuse": {"a": float("inf")}},
            {"crash": True},
            {"key": "eve"},
            {"key": "eve2", "meta": {"b": [1]}},
            {"response": {"a": float("inf")}},
            {"response": [1]},
            {"away": True},
            {},
        ]
    )
    | values
)


def text_of(value: Any) -> str:
    return json.dumps(value)


sensible = st.tuples(refs, refs, topics, events, payloads).map(text_of)
objects = st.fixed_dictionaries(
    {"topic": topics, "event": events, "payload": payloads, "ref": refs},
    optional={"join_ref": refs},
).map(text_of)


@st.composite
def binary(draw: st.DrawFn) -> bytes:
    names = [
        str(draw(one)).encode() for one in (refs, refs, topics, st.sampled_from(["echo", "shout"]))
    ]
    head = bytes([draw(st.sampled_from([0, 0, 0, 1, 2])), *map(len, names)])
    return head + b"".join(names) + draw(st.binary(max_size=20))


@st.composite
def broken(draw: st.DrawFn) -> str | bytes:
    """A frame of which something was cut out, or into which something was put."""
    frame: str | bytes = draw(sensible | objects | binary())
    start = draw(st.integers(0, len(frame)))
    end = draw(st.integers(start, len(frame)))
    if isinstance(frame, bytes):
        return frame[:start] + draw(st.binary(max_size=5)) + frame[end:]
    return frame[:start] + draw(st.text(max_size=5)) + frame[end:]


garbage = st.text() | st.binary() | values.map(text_of) | st.lists(values).map(text_of)
sequences_2 = st.lists(sensible | sensible | binary(), max_size=20)
sequences_1 = st.lists(objects, max_size=20)
#: Sensible frames, and at the end one that may be none.
mixed = st.tuples(sequences_2, broken() | garbage).map(lambda pair: [*pair[0], pair[1]])


async def harms_nobody(made: ServedApp, frames: Frames, query: str = "vsn=2.0.0") -> None:
    """Somebody sends frames while somebody else is in the same room."""
    async with asgi_client(made.socket) as bob:
        assert (await bob.join("room:1", {"track": "bob"}))["status"] == "ok"
        eve = AsgiClient(made.socket, query)
        await eve.open()
        for frame in frames:
            eve.send(frame)
        await eve.close()
        await others_are_well(made, bob)


async def others_are_well(made: ServedApp, bob: AsgiClient) -> None:
    """The one in the room can talk, and is there alone."""
    bob.push("1", "9", "room:1", "echo", {"still": "here"})
    assert await bob.reply("9") == {"status": "ok", "response": {"still": "here"}}
    bob.push("1", "10", "room:1", "shout", {"to": "all"})
    while await bob.read() != '[null,null,"room:1","shout",{"to":"all"}]':
        pass
    assert made.presence.topics() == ["room:1"]
    assert made.keys("room:1") == ["bob"]
    assert made.socket.stats()["connections"] == made.socket.stats()["channels"] == 1
    joins, ends = len(made.clients), len(made.ends)
    assert joins == 2
    assert ends <= 50


async def alone(frames: Frames, query: str = "vsn=2.0.0", **settings: Any) -> None:
    made = ServedApp(**settings)
    async with made.node:
        await harms_nobody(made, frames, query)
    assert made.socket.stats()["connections"] == made.socket.stats()["followers"] == 0


@examples(40)
@given(sequences_2)
@example(['["1","1","room:1","phx_join",{"track":"eve"}]'] * 3)
@example(['["1","1","room:1","phx_join",{"refuse":{"a":Infinity}}]'])
@example(['["1","1","room:1","phx_join",{}]', '["1","2","room:1","refuse",{"a":1e400}]'])
def test_random_frames_do_not_affect_other_clients(frames: Frames) -> None:
    run(alone(frames))


@examples(20)
@given(sequences_1)
def test_random_v1_frames_do_not_affect_other_clients(frames: Frames) -> None:
    run(alone(frames, "vsn=1.0.0"))


@examples(40)
@given(mixed)
def test_garbage_after_random_frames_does_not_affect_other_clients(frames: Frames) -> None:
    run(alone(frames))


@pytest.mark.usefixtures("each_carrier")
@examples(20)
@given(sequences_2)
def test_random_frames_under_tight_rate_limits_do_not_affect_other_clients(frames: Frames) -> None:
    limits = Limits(channels=1, joins=3, updates=2, waiting=2, outbox=600, frame_size=200)
    run(alone(frames, limits=limits))


@pytest.mark.usefixtures("each_carrier")
@examples(10)
@given(st.lists(mixed, min_size=1, max_size=3))
def test_random_frames_over_real_sockets_do_not_affect_other_clients(lives: list[Frames]) -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as bob:
            await bob.join("room:1", {"track": "bob"})
            for frames in lives:
                async with ws_client(made) as eve:
                    for frame in frames:
                        if isinstance(frame, str):
                            frame = frame.encode("utf-8", "replace").decode()
                        await eve.send(frame)
            await until(lambda: made.socket.stats()["connections"] == 1)
            await bob.send('["3","9","room:1","echo",{}]')
            expected = '["3","9","room:1","phx_reply",{"status":"ok","response":{}}]'
            while await bob.read() != expected:
                pass
            assert made.keys("room:1") == ["bob"]

    run(main())
