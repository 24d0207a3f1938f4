"""`examples/supabase_realtime.py` in one process: frames, tokens that expire, hostile clients."""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.testing import Browser, RefusedByServerError
from tests.support.effort import examples

from .example_processes import EXAMPLES
from .supabase_clients import API_KEY, JWT_SECRET, pushed, token

PARAMS = {"apikey": API_KEY}
TOPIC = "realtime:room:1"
#: A value that is nested deeper than adsum sends.
DEEP = json.loads("[" * 500 + "]" * 500)
PRESENT = {"config": {"presence": {"key": "ann"}}}


def load() -> Any:
    """The example, with a node that has no siblings."""
    settings = {
        "SUPABASE_ANON_KEY": API_KEY,
        "SUPABASE_JWT_SECRET": JWT_SECRET,
        "ADSUM_SIBLINGS": "no",
    }
    spec = spec_from_file_location("supabase_realtime", EXAMPLES / "supabase_realtime.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        spec.loader.exec_module(module)
    return module


FRAMES = load().UserBroadcasts()


@pytest.fixture
def program() -> Any:
    """The example, with a node of its own."""
    return load()


@asynccontextmanager
async def browser(program: Any) -> AsyncIterator[Browser]:
    """A client of the running example."""
    async with program.node, Browser(program.socket, PARAMS) as connected:
        yield connected


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
refs = st.text(st.characters(max_codepoint=127), min_size=1, max_size=20)


@examples(50)
@given(refs, refs, names, names, st.binary(), st.sampled_from([b"", b'{"persist":true}']))
def test_binary_broadcast_is_passed_on_with_its_event_and_bytes(
    join_ref: str, ref: str, topic: str, event: str, payload: bytes, metadata: bytes
) -> None:
    frame = FRAMES.decode(pushed([join_ref, ref, topic, event], 0, payload, metadata))
    assert frame[:4] == (join_ref, ref, topic, "broadcast")
    sent = FRAMES.broadcast(topic, "broadcast", frame.payload)
    lengths = bytes([4, len(topic.encode()), len(event.encode()), 0, 0])
    assert sent == lengths + topic.encode() + event.encode() + payload


@examples(50)
@given(names, st.lists(st.integers() | st.text()))
def test_json_in_a_binary_broadcast_is_that_of_other_clients(event: str, value: Any) -> None:
    text = json.dumps(value).encode()
    frame = FRAMES.decode(pushed(["1", "2", TOPIC, event], 1, text))
    assert frame == ("1", "2", TOPIC, "broadcast", {"event": event, "payload": value})


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        ("broadcast", {"event": 5}),
        ("broadcast", {"payload": {}}),
        ("broadcast", ["event"]),
        ("broadcast", {"event": "x" * 256}),
        ("broadcast", {"event": "deep", "payload": DEEP}),
        ("presence", {"event": "track", "payload": {"deep": DEEP}}),
        ("presence", None),
    ],
)
def test_wrong_payload_is_refused_and_the_channel_goes_on(
    program: Any, event: str, payload: Any
) -> None:
    async def main() -> None:
        async with browser(program) as ann:
            room = await ann.join(TOPIC)
            with pytest.raises(RefusedByServerError):
                await room.ask(event, payload)
            assert await room.ask("presence", {"event": "untrack"}) == {}

    asyncio.run(main())


@pytest.mark.parametrize(
    "value", [None, 5, "text", [], {"config": []}, {"config": {"presence": 1}}]
)
def test_join_with_an_unusual_payload_is_accepted(program: Any, value: Any) -> None:
    async def main() -> None:
        async with browser(program) as ann:
            room = await ann.join(TOPIC, value)
            assert room.response == {"postgres_changes": []}
            assert await room.ask("presence", {"event": "track", "payload": {"n": 1}}) == {}
            ((key, entry),) = (await room.presence()).items()
            assert (len(key), entry["metas"][0]["n"]) == (32, 1)

    asyncio.run(main())


@pytest.mark.parametrize("wrong", ["", "k" * 39, "ö"])
def test_client_without_the_api_key_is_refused(program: Any, wrong: str) -> None:
    async def main() -> None:
        async with program.node:
            with pytest.raises(RefusedByServerError):
                await Browser(program.socket, {"apikey": wrong}).connect()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("given_token", "reason"),
    [
        (token(seconds=-10), "Signature has expired"),
        (token(aud="another"), "Audience"),
        (token(exp=None), "exp"),
        (token(sub=None), "sub"),
        (token() + "x", "InvalidJWTToken"),
        ("", "InvalidJWTToken"),
        ("\ud800", "InvalidJWTToken"),
        (5, "InvalidJWTToken"),
        ({}, "InvalidJWTToken"),
    ],
)
def test_join_with_a_wrong_token_is_refused_with_the_reason(
    program: Any, given_token: Any, reason: str
) -> None:
    async def main() -> None:
        async with browser(program) as ann:
            with pytest.raises(RefusedByServerError) as caught:
                await ann.join(TOPIC, {"access_token": given_token})
            assert reason in caught.value.response["reason"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("given_token", "config", "name", "admitted"),
    [
        (None, {}, "room", True),
        (API_KEY, {}, "room", True),
        (API_KEY, {"private": True}, "room", False),
        (API_KEY, {}, "private:1", False),
        (token(), {"private": True}, "private:1", True),
    ],
)
def test_private_topics_are_for_users(
    program: Any, given_token: Any, config: Any, name: str, admitted: bool
) -> None:
    async def main() -> None:
        async with browser(program) as ann:
            payload = {"config": config, "access_token": given_token}
            refused = pytest.raises(RefusedByServerError, match="Unauthorized")
            with nullcontext() if admitted else refused:
                await ann.join(f"realtime:{name}", payload)

    asyncio.run(main())


def test_channel_ends_when_its_token_expires_unless_it_was_renewed(program: Any) -> None:
    def expiring(given_token: Any) -> tuple[str, float]:
        return "ann", math.inf if given_token == "lasting" else time.time() + 0.05

    async def main() -> None:
        program.read_token = expiring
        async with browser(program) as ann:
            kept = await ann.join("realtime:kept", {"access_token": "short"})
            await kept.push("access_token", {"access_token": "lasting"})
            room = await ann.join(TOPIC, {**PRESENT, "access_token": "short"})
            await room.ask("presence", {"event": "track", "payload": {}})
            assert await room.expect("system") == {
                "channel": "room:1",
                "extension": "system",
                "status": "error",
                "message": "Access token has expired",
            }
            await room.expect("phx_close")
            assert program.presence.list(TOPIC) == {}
            await kept.ask("presence", {"event": "untrack"})

    asyncio.run(main())


@pytest.mark.parametrize("given_key", [None, "short"])
def test_without_a_secret_nothing_starts(
    program: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, given_key: str | None
) -> None:
    if given_key is not None:
        monkeypatch.setenv("SUPABASE_ANON_KEY", given_key)
    with pytest.raises(SystemExit):
        program.setting("SUPABASE_ANON_KEY")
    assert "SUPABASE_ANON_KEY: must be set, to 32 characters or more" in capsys.readouterr().err
