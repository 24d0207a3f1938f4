"""Whatever a client sends: the stated answer, one line that quotes none of it, nobody disturbed."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from adsum.channels import Limits
from tests.support.waiting import until

from .captured_log import Log
from .http_poller import http_poller
from .leak_check import run
from .served_app import ServedApp, served_app
from .ws_client import WsClient, ws_client

pytestmark = pytest.mark.usefixtures("each_carrier")

MARKER = "the-marker"
#: Frames of version 2 that are none; the connection closes with 1011.
NO_FRAMES: dict[str, str | bytes] = {
    "not JSON": f"{MARKER}",
    "nothing": "",
    "half of a frame": f'["1","1","room:1","echo",{{"a":"{MARKER}"',
    "something after it": f'["1","1","room:1","echo",{{}}]{MARKER}',
    "four elements": f'["1","1","room:1","{MARKER}"]',
    "no elements": "[]",
    "a topic that is a number, of six": f'["1","1",1,"echo",{{}},"{MARKER}"]',
    "an object": f'{{"topic":"room:1","event":"echo","payload":"{MARKER}","ref":"1"}}',
    "a text": f'"{MARKER}"',
    "null": "null",
    "a topic that is a number": f'["1","1",1,"echo","{MARKER}"]',
    "a topic that is null": f'["1","1",null,"echo","{MARKER}"]',
    "an empty topic": f'["1","1","","echo","{MARKER}"]',
    "a topic that is too long": f'["1","1","{MARKER * 1000}","echo",{{}}]',
    "an event that is a list": f'["1","1","room:1",["{MARKER}"],{{}}]',
    "an empty event": f'["1","1","room:1","","{MARKER}"]',
    "a ref that is a list": f'["1",["{MARKER}"],"room:1","echo",{{}}]',
    "a ref that is a fraction": f'["1",1.5,"room:1","echo","{MARKER}"]',
    "a ref that is true": f'["1",true,"room:1","echo","{MARKER}"]',
    "a ref that is too long": f'["1","{MARKER * 100}","room:1","echo",{{}}]',
    "a ref that is a huge number": f'["1",{"9" * 400},"room:1","echo","{MARKER}"]',
    "a join ref that is an object": f'[{{"{MARKER}":1}},"1","room:1","echo",{{}}]',
    "a number of more digits than Python reads": f'["1","{MARKER}","r","e",{"9" * 5000}]',
    "NaN": f'["1","1","room:1","echo",{{"{MARKER}":NaN}}]',
    "Infinity": f'["1","1","room:1","echo",{{"{MARKER}":-Infinity}}]',
    "a lone surrogate in the topic": f'["1","1","room:\\ud800{MARKER}","echo",{{}}]',
    "a lone surrogate in the event": f'["1","1","room:1","\\udfff{MARKER}",{{}}]',
    "a lone surrogate in the ref": f'["1","\\ud800{MARKER}","room:1","echo",{{}}]',
    "deep lists": f'["{MARKER}","1","room:1","echo",' + "[" * 30_000,
    "deep objects": f'["{MARKER}","1","room:1","echo",' + '{"a":' * 10_000,
    "deep and closed": "[" * 30_000 + f'"{MARKER}"' + "]" * 30_000,
    "a byte order mark": f'\ufeff["1","1","room:1","echo","{MARKER}"]',
    "a raw control character": f'["1","1","room:1","echo","\n{MARKER}"]',
}
NO_BINARY_FRAMES: dict[str, str | bytes] = {
    "no bytes": b"",
    "one byte": b"\x00",
    "lengths alone": b"\x00\x01\x01\x06",
    "lengths that reach beyond the end": b"\x00\x01\x01\xff\x03" + MARKER.encode(),
    "a reply": b"\x01\x01\x01\x06\x02" + b"11room:1ok" + MARKER.encode(),
    "a broadcast": b"\x02\x06\x05" + b"room:1shout" + MARKER.encode(),
    "an unknown kind": b"\xff" + MARKER.encode() * 10,
    "names that are not UTF-8": b"\x00\x01\x01\x02\x03" + b"11\xff\xfebin" + MARKER.encode(),
    "an empty topic": b"\x00\x01\x01\x00\x03" + b"11bin" + MARKER.encode(),
    "an empty event": b"\x00\x01\x01\x06\x00" + b"11room:1" + MARKER.encode(),
    "a JSON frame as bytes": b'["1","1","room:1","echo",{}]' + MARKER.encode(),
}
NO_V1_FRAMES: dict[str, str | bytes] = {
    "an array": f'["1","1","room:1","echo","{MARKER}"]',
    "no topic": f'{{"event":"{MARKER}","payload":{{}},"ref":"1"}}',
    "no event": f'{{"topic":"{MARKER}","payload":{{}},"ref":"1"}}',
    "no payload": f'{{"topic":"{MARKER}","event":"e","ref":"1"}}',
    "a topic that is a list": f'{{"topic":["{MARKER}"],"event":"e","payload":{{}},"ref":"1"}}',
    "a binary push": b"\x00\x01\x01\x06\x03" + b"39room:1bin" + MARKER.encode(),
    "an array as bytes": f'["1","1","room:1","echo","{MARKER}"]'.encode(),
    "bytes that are not UTF-8": b'{"topic":"\xff","event":"e","payload":"the-marker","ref":"1"}',
    "UTF-16": f'{{"topic":"t","event":"e","payload":"{MARKER}","ref":"1"}}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + b'{"topic":"t","event":"e","payload":1,"ref":"1"}',
    "no bytes": b"",
}


@asynccontextmanager
async def company(log: Log, **settings: Any) -> AsyncIterator[tuple[ServedApp, WsClient]]:
    """A site with somebody in a room, who must not notice anything but that others come and go."""
    async with served_app(**settings) as made, ws_client(made) as bob:
        await bob.join("room:9", {"track": "bob"})
        await bob.read()
        log.clear()
        yield made, bob
        await bob.send('["3","9","room:9","shout",{"still":"here"}]')
        await bob.receives('[null,null,"room:9","shout",{"still":"here"}]')
        await until(lambda: made.keys("room:1") == [])
        assert made.keys("room:9") == ["bob"]
        assert len(log.lines) == 1, log.lines
        assert MARKER not in log.everything


async def closes(made: ServedApp, frame: str | bytes, code: int, query: str = "vsn=2.0.0") -> None:
    """Somebody who is present sends a frame, and the connection is closed."""
    async with ws_client(made, query) as eve:
        if "1.0" in query:
            await eve.send('{"topic":"room:1","event":"phx_join","payload":{},"ref":"3"}')
            await eve.read()
        else:
            await eve.present("room:1", "eve")
        await eve.send(frame)
        assert await eve.closed() == code


@pytest.mark.parametrize("what", NO_FRAMES)
def test_malformed_frame_closes_the_connection_with_1011(what: str, log: Log) -> None:
    async def main() -> None:
        async with company(log) as (made, _):
            await closes(made, NO_FRAMES[what], 1011)

    run(main())


@pytest.mark.parametrize("what", NO_BINARY_FRAMES)
def test_malformed_binary_push_closes_the_connection_with_1011(what: str, log: Log) -> None:
    async def main() -> None:
        async with company(log) as (made, _):
            await closes(made, NO_BINARY_FRAMES[what], 1011)

    run(main())


@pytest.mark.parametrize("what", NO_V1_FRAMES)
def test_malformed_v1_frame_closes_the_connection_with_1011(what: str, log: Log) -> None:
    async def main() -> None:
        async with company(log) as (made, _):
            await closes(made, NO_V1_FRAMES[what], 1011, "vsn=1.0.0")

    run(main())


@pytest.mark.parametrize("letter", ["x", "é", "😀"])
def test_oversized_frame_closes_the_connection_with_1009(letter: str, log: Log) -> None:
    async def main() -> None:
        async with company(log, limits=Limits(frame_size=1000)) as (made, _):
            head = '["3","9","room:1","echo",{"a":"'
            size = (1000 - len(head) - 3) // len(letter.encode())
            async with ws_client(made) as ann:  # as large as may be
                await ann.join("room:1")
                await ann.send(f'{head}{letter * size}"}}]')
                assert (await ann.payload('["3","9","room:1","phx_reply",'))["status"] == "ok"
            await closes(made, f'{head}{letter * (size + 1)}{MARKER}"}}]', 1009)

    run(main())


def test_oversized_binary_frame_closes_the_connection_with_1009(log: Log) -> None:
    async def main() -> None:
        async with company(log, limits=Limits(frame_size=1000)) as (made, _):
            frame = b"\x00\x01\x01\x06\x03" + b"39room:1bin" + MARKER.encode() * 100
            await closes(made, frame, 1009)

    run(main())


@pytest.mark.parametrize(
    "payload", ["1", '"the-marker"', "[[]]", "true", '{"a":1e400}', '{"\\ud800":"\\ud800"}']
)
def test_payload_of_any_json_reaches_the_handler_and_crashes_only_its_channel(
    payload: str,
) -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann:
            await ann.join("room:1")
            await ann.join("room:2", ref="4")
            await ann.send(f'["3","9","room:1","echo",{payload}]')
            frame = json.loads(await ann.read())
            if frame[3] == "phx_reply":
                assert frame[4]["status"] == "ok"
            else:
                assert frame == ["3", "3", "room:1", "phx_error", {}]
            await ann.ask(
                '["4","5","room:2","echo",{}]',
                '["4","5","room:2","phx_reply",{"status":"ok","response":{}}]',
            )

    run(main())


def test_invalid_utf_8_text_closes_only_its_connection() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann, ws_client(made) as eve:
            await eve.present("room:1", "eve")
            await eve.connection.send(b"\xff\xfe", text=True)
            assert await eve.closed() == 1007
            await until(lambda: made.keys("room:1") == [])
            await ann.is_alive()

    run(main())


def test_oversized_longpoll_body_is_answered_413(log: Log) -> None:
    async def main() -> None:
        limits = Limits(frame_size=1000)
        async with company(log, limits=limits) as (made, _), http_poller(made) as ann:
            assert await ann.post(MARKER * 2000) == {"status": 413}
            await ann.join("room:1")

    run(main())


def test_invalid_utf_8_longpoll_body_is_answered_400(log: Log) -> None:
    async def main() -> None:
        async with company(log) as (made, _), http_poller(made) as ann:
            assert await ann.post(b"\xff" + MARKER.encode()) == {"status": 400}
            await ann.join("room:1")

    run(main())


@pytest.mark.parametrize("line", ["the-marker", "dGhlLW1hcmtlcg==", "[", "{}", "null", " "])
def test_malformed_longpoll_line_ends_the_session(line: str, log: Log) -> None:
    async def main() -> None:
        async with company(log) as (made, _), http_poller(made) as ann:
            assert await ann.post(line, kind="text/plain") == {"status": 410}
            assert (await ann.get())["status"] == 500

    run(main())


def test_oversized_longpoll_line_ends_the_session(log: Log) -> None:
    async def main() -> None:
        limits = Limits(frame_size=1000)
        async with company(log, limits=limits) as (made, _), http_poller(made) as ann:
            frame = json.dumps(["3", "9", "room:1", "echo", {"a": MARKER * 100}])
            assert await ann.post(frame) == {"status": 410}

    run(main())


def test_url_parameters_are_limited_to_a_hundred(log: Log) -> None:
    async def main() -> None:
        async with company(log) as (made, _), http_poller(made) as ann:
            ann.query = "&".join(["vsn=2.0.0", *[f"a{n}={MARKER}" for n in range(200)]])
            assert (await ann.get())["status"] == 403

    run(main())
