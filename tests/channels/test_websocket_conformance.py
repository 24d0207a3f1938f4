"""WebSockets by RFC 6455 and RFC 7692, case by case, under uvicorn's protocol class and under ours.

Each case states the exact answer. Where the RFCs let servers choose, it states the choice of
uvicorn, so that an application is served alike by both classes.
"""

import asyncio
import functools
import json
from collections.abc import Callable, Coroutine, Iterable, Iterator
from random import Random
from typing import Any, ParamSpec

import pytest
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.version import version as websockets_version

from adsum.channels import Limits
from tests.support.waiting import until

from .app import connections
from .conformance_servers import (
    MAX_SIZE,
    SERVERS,
    Channels,
    ConformanceServer,
    Gate,
    Peer,
    conformance_server,
)
from .leak_check import run
from .phoenix_presence import Presence
from .raw_websocket import (
    ACCEPT,
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    Deflate,
    RawFrame,
    close_payload,
    fragments,
)
from .served_app import served_app
from .ws_client import ws_client

P = ParamSpec("P")
_VERSION = tuple(map(int, websockets_version.split(".")[:2]))
#: Marks of cases that older versions of websockets answer otherwise, by either protocol class.
MENDED_IN_17_0 = pytest.mark.skipif(_VERSION < (17, 0), reason="mended in websockets 17.0")
MENDED_IN_17_4 = pytest.mark.skipif(_VERSION < (17, 4), reason="mended in websockets 17.4")
MENDED = {
    "permessage-deflate; server_max_window_bits=8": MENDED_IN_17_4,
    "RSV1 of a later fragment": MENDED_IN_17_0,
}
#: Characters whose UTF-8 has one to four bytes.
CHARACTERS = "a\u00e9\u20ac\U0001f600\x00\u007f\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff"


def cases(names: Iterable[str]) -> list[Any]:
    """The parameters for cases, with their marks."""
    return [pytest.param(name, marks=MENDED.get(name, ())) for name in names]


@pytest.fixture(scope="module", params=SERVERS)
def conformance(request: pytest.FixtureRequest) -> Iterator[ConformanceServer]:
    with conformance_server(request.param) as made:
        yield made


@pytest.fixture
def peer(conformance: ConformanceServer) -> Iterator[Peer]:
    """A client that has not connected yet; the server must be idle when it has gone."""
    made = Peer(conformance)
    try:
        yield made
    finally:
        conformance.run(made.leave())


def served(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test in the loop of its server."""

    @functools.wraps(test)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        peer = kwargs["peer"]
        assert isinstance(peer, Peer)
        peer.server.run(test(*args, **kwargs))

    return wrapper


def opened(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test in the loop of its server, with a client that has connected."""

    @functools.wraps(test)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        peer = kwargs["peer"]
        assert isinstance(peer, Peer)
        await peer.open()
        await test(*args, **kwargs)

    return served(wrapper)


def channels_only(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test in the loop of its server, for each whose application is a `Socket`."""
    names = [name for name, (app, _, _) in SERVERS.items() if app is Channels]
    return pytest.mark.parametrize("conformance", names, indirect=True, scope="module")(
        served(test)
    )


def channels(peer: Peer) -> Channels:
    assert isinstance(peer.app, Channels)
    return peer.app


def sized(peer: Peer, kind: type[str] | type[bytes], size: int) -> str | bytes:
    """A content whose message has so many bytes."""
    message = peer.app.message(kind())
    if isinstance(kind(), bytes):
        return b"\xfe" * (size - len(message.payload))
    return "x" * (size - len(message.payload))


# Framing.


@pytest.mark.parametrize("kind", [str, bytes])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 65535, 65536])
@opened
async def test_message_of_each_length_is_echoed(peer: Peer, kind: Any, size: int) -> None:
    content = sized(peer, kind, max(size, peer.app.least))
    await peer.send(peer.app.message(content))
    await peer.echoes(content)
    await peer.is_alive()


@pytest.mark.parametrize("length_bytes", [2, 8])
@opened
async def test_length_in_more_bytes_than_it_needs_is_accepted(
    peer: Peer, length_bytes: int
) -> None:
    content = sized(peer, bytes, 40)
    await peer.client.send(peer.app.message(content).encode(length_bytes=length_bytes))
    await peer.echoes(content)
    await peer.is_alive()


@pytest.mark.parametrize("size", [40, 126, 65535, 65536])
@opened
async def test_message_in_pieces_is_echoed(peer: Peer, size: int) -> None:
    content = sized(peer, str, size)
    data = peer.app.message(content).encode()
    head = data[:20]
    step = max(1, (len(data) - 20) // 50)
    rest = [data[start : start + step] for start in range(20, len(data), step)]
    await peer.client.send(*(head[n : n + 1] for n in range(20)), *rest)
    await peer.echoes(content)
    await peer.is_alive()


@opened
async def test_many_messages_in_one_piece_are_echoed_in_order(peer: Peer) -> None:
    contents = [f"text {n}" if n % 2 else f"bytes {n}".encode() for n in range(50)]
    await peer.send(*map(peer.app.message, contents))
    await peer.echoes(*contents)
    await peer.is_alive()


@opened
async def test_piece_that_ends_within_a_frame_is_completed_by_the_next_one(peer: Peer) -> None:
    data = b"".join(peer.app.message(f"text {n}").encode() for n in range(4))
    for cut in range(1, len(data), 7):
        await peer.client.send(data[:cut], data[cut:])
        await peer.echoes(*(f"text {n}" for n in range(4)))


@pytest.mark.parametrize("mask", [bytes(4), b"\xff\xff\xff\xff", b"\x00\x01\x02\x03"])
@opened
async def test_each_mask_is_applied(peer: Peer, mask: bytes) -> None:
    for content in ("text", b"\x00\xff\x10 bytes", "€" * 100):
        await peer.client.send(peer.app.message(content).encode(mask=mask))
        await peer.echoes(content)


# Pings and pongs.


@pytest.mark.parametrize("size", [0, 1, 4, 124, 125])
@opened
async def test_ping_is_answered_with_its_payload(peer: Peer, size: int) -> None:
    payload = bytes(range(256))[-size:] if size else b""
    await peer.send(RawFrame(PING, payload))
    await peer.receives(RawFrame(PONG, payload))
    await peer.is_alive()


@opened
async def test_ping_in_pieces_is_answered(peer: Peer) -> None:
    data = RawFrame(PING, b"payload").encode()
    await peer.client.send(*(data[n : n + 1] for n in range(len(data))))
    await peer.receives(RawFrame(PONG, b"payload"))


@opened
async def test_each_of_many_pings_is_answered_in_order(peer: Peer) -> None:
    await peer.send(*(RawFrame(PING, b"%d" % n) for n in range(100)))
    await peer.receives(*(RawFrame(PONG, b"%d" % n) for n in range(100)))
    await peer.is_alive()


@pytest.mark.parametrize("payload", [b"", b"unsolicited", b"x" * 125])
@opened
async def test_unsolicited_pong_is_not_answered(peer: Peer, payload: bytes) -> None:
    await peer.send(RawFrame(PONG, payload))
    await peer.is_alive()
    await peer.send(RawFrame(PONG, payload), RawFrame(PING, b"1"), RawFrame(PONG, payload))
    await peer.receives(RawFrame(PONG, b"1"))
    await peer.is_alive()


# Fragmentation.


@pytest.mark.parametrize("kind", [str, bytes])
@pytest.mark.parametrize("cuts", [(1,), (0,), (0, 0), (3, 3), (2, 9, 20), (28,), tuple(range(28))])
@opened
async def test_fragments_are_joined(peer: Peer, kind: Any, cuts: tuple[int, ...]) -> None:
    content = sized(peer, kind, max(28, peer.app.least))
    message = peer.app.message(content)
    pieces = fragments(message.opcode, message.payload, *cuts)
    await peer.send(*pieces)
    await peer.echoes(content)
    for piece in pieces:
        await peer.send(piece)
        await asyncio.sleep(0)
    await peer.echoes(content)
    await peer.is_alive()


@opened
async def test_fragments_without_payload_around_a_message_are_joined(peer: Peer) -> None:
    message = peer.app.message("text")
    empty = RawFrame(CONT, fin=False)
    await peer.send(
        RawFrame(TEXT, fin=False), empty, RawFrame(CONT, message.payload, False), empty, empty
    )
    await peer.send(RawFrame(PING), RawFrame(CONT))
    await peer.receives(RawFrame(PONG))
    await peer.echoes("text")


@opened
async def test_control_frames_between_fragments_are_handled_at_once(peer: Peer) -> None:
    message = peer.app.message("in fragments")
    first, second, third = fragments(message.opcode, message.payload, 5, 12)
    await peer.send(first, RawFrame(PING, b"1"), second, RawFrame(PONG), RawFrame(PING, b"2"))
    await peer.receives(RawFrame(PONG, b"1"), RawFrame(PONG, b"2"))
    await peer.send(third)
    await peer.echoes("in fragments")
    await peer.is_alive()


@opened
async def test_fragments_of_several_messages_in_one_piece_are_joined(peer: Peer) -> None:
    contents = [f"text {n}" if n % 2 else f"bytes {n}".encode() for n in range(20)]
    frames = [
        frame
        for n, message in enumerate(map(peer.app.message, contents))
        for frame in fragments(message.opcode, message.payload, *range(1, n % 4 + 1))
    ]
    await peer.send(*frames)
    await peer.echoes(*contents)
    await peer.is_alive()


# Frames that fail the connection.

VIOLATIONS: dict[str, list[bytes]] = {
    f"reserved bits {rsv} of opcode {opcode}": [RawFrame(opcode, b"x", rsv=rsv).encode()]
    for opcode in (TEXT, BINARY, CLOSE, PING, PONG)
    for rsv in (RSV1, RSV2, RSV3, RSV1 | RSV2 | RSV3)
}
VIOLATIONS |= {
    f"reserved opcode {opcode}": [RawFrame(opcode).encode()]
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
}
VIOLATIONS |= {
    f"{name} that is not masked": [RawFrame(opcode, payload).encode(mask=None)]
    for name, opcode, payload in (
        ("text", TEXT, b"[]"),
        ("empty text", TEXT, b""),
        ("long text", TEXT, b"[" + b" " * 200 + b"]"),
        ("bytes", BINARY, b"bytes"),
        ("ping", PING, b""),
        ("close", CLOSE, close_payload(1000)),
    )
}
VIOLATIONS |= {
    "text that is not masked, and a ping": [
        RawFrame(TEXT, b"[]").encode(mask=None) + RawFrame(PING).encode()
    ],
    "reserved opcode with payload": [RawFrame(5, b"payload").encode()],
    "ping too long": [RawFrame(PING, b"x" * 126).encode()],
    "pong too long": [RawFrame(PONG, b"x" * 126).encode()],
    "close too long": [RawFrame(CLOSE, close_payload(1000, "x" * 124)).encode()],
    "ping in fragments": [RawFrame(PING, b"x", fin=False).encode()],
    "pong in fragments": [RawFrame(PONG, b"x", fin=False).encode()],
    "close in fragments": [RawFrame(CLOSE, close_payload(1000), fin=False).encode()],
    "continuation of nothing": [RawFrame(CONT, b"x").encode()],
    "continuation of nothing, to be continued": [RawFrame(CONT, b"x", fin=False).encode()],
    "message within a message": [
        RawFrame(TEXT, b"[", fin=False).encode(),
        RawFrame(TEXT, b"]").encode(),
    ],
    "fragmented message within a message": [
        RawFrame(BINARY, b"1", fin=False).encode(),
        RawFrame(BINARY, b"2", fin=False).encode(),
    ],
    "reserved bit of a continuation": [
        RawFrame(TEXT, b"[", fin=False).encode(),
        RawFrame(CONT, b"]", rsv=RSV2).encode(),
    ],
    "reserved opcode within a message": [
        RawFrame(TEXT, b"[", fin=False).encode(),
        RawFrame(3).encode(),
    ],
    "close within a message": [
        RawFrame(TEXT, b"[", fin=False).encode(),
        RawFrame(CLOSE, close_payload(1000)).encode(),
    ],
    "close with one byte": [RawFrame(CLOSE, b"\x03").encode()],
}
VIOLATIONS |= {
    f"close with code {code}": [RawFrame(CLOSE, close_payload(code)).encode()]
    for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
}


@pytest.mark.parametrize("name", VIOLATIONS)
@opened
async def test_violation_of_the_protocol_fails_the_connection_with_1002(
    peer: Peer, name: str
) -> None:
    await peer.is_alive()
    await peer.client.send(*VIOLATIONS[name])
    await peer.is_failed(1002)


@pytest.mark.parametrize("name", ["ping too long", "reserved opcode 3", "close with one byte"])
@opened
async def test_violation_in_pieces_fails_the_connection_with_1002(peer: Peer, name: str) -> None:
    (data,) = VIOLATIONS[name]
    await peer.client.send(*(data[n : n + 1] for n in range(len(data))))
    await peer.is_failed(1002)


@opened
async def test_pings_before_a_violation_in_one_piece_are_answered(peer: Peer) -> None:
    await peer.send(RawFrame(PING, b"1"), RawFrame(PING, b"2"), RawFrame(3), RawFrame(PING, b"3"))
    await peer.receives(RawFrame(PONG, b"1"), RawFrame(PONG, b"2"))
    await peer.is_failed(1002)


@opened
async def test_frames_after_a_violation_are_dropped(peer: Peer) -> None:
    await peer.send(RawFrame(TEXT, b"", rsv=RSV3), peer.app.message("more"), RawFrame(PING))
    await peer.is_failed(1002)


# UTF-8.


@opened
async def test_valid_utf8_of_each_length_is_echoed(peer: Peer) -> None:
    await peer.send(peer.app.message(CHARACTERS))
    await peer.echoes(CHARACTERS)


@opened
async def test_characters_split_over_fragments_are_joined(peer: Peer) -> None:
    content = "€\U0001f600é"
    message = peer.app.message(content)
    for cut in range(1, len(message.payload)):
        await peer.send(*fragments(TEXT, message.payload, cut))
        await peer.echoes(content)
    await peer.send(*fragments(TEXT, message.payload, *range(1, len(message.payload))))
    await peer.echoes(content)


@opened
async def test_characters_split_over_pieces_are_joined(peer: Peer) -> None:
    content = "€\U0001f600é"
    data = peer.app.message(content).encode()
    await peer.client.send(*(data[n : n + 1] for n in range(len(data))))
    await peer.echoes(content)


NOT_UTF8 = {
    "lone continuation": b"\x80",
    "continuations": b"\xbf\x80\xbf",
    "missing continuation": b"\xc3",
    "missing two continuations": b"\xf0\x9f\x98",
    "missing continuation before ASCII": b"\xe2\x82x",
    "overlong slash of two bytes": b"\xc0\xaf",
    "overlong slash of three bytes": b"\xe0\x80\xaf",
    "overlong zero": b"\xc0\x80",
    "overlong of four bytes": b"\xf0\x80\x80\xaf",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "six bytes": b"\xfc\x84\x80\x80\x80\x80",
    "surrogate": b"\xed\xa0\x80",
    "pair of surrogates": b"\xed\xa0\xbd\xed\xb8\x80",
    "beyond the last code point": b"\xf4\x90\x80\x80",
    "impossible bytes": b"\xfe\xff",
}


@pytest.mark.parametrize("name", NOT_UTF8)
@opened
async def test_text_that_is_not_utf8_fails_the_connection_with_1007(peer: Peer, name: str) -> None:
    message = peer.app.message("beforeafter").payload
    await peer.send(RawFrame(TEXT, message.replace(b"after", NOT_UTF8[name] + b"after")))
    await peer.is_failed(1007)


@pytest.mark.parametrize("cuts", [(3,), (35, 36, 37), ()])
@opened
async def test_fragments_that_are_not_utf8_fail_the_connection_with_1007(
    peer: Peer, cuts: tuple[int, ...]
) -> None:
    payload = peer.app.message("x" * 40).payload.replace(b"xxxx", b"\xf0\x9fxx")
    await peer.send(*fragments(TEXT, payload, *cuts))
    await peer.is_failed(1007)


@opened
async def test_text_that_ends_within_a_character_fails_the_connection_with_1007(
    peer: Peer,
) -> None:
    await peer.send(*fragments(TEXT, b"[\xe2\x82", 1, 2))
    await peer.is_failed(1007)


@opened
async def test_bytes_need_not_be_utf8(peer: Peer) -> None:
    content = b"".join(NOT_UTF8.values())
    await peer.send(peer.app.message(content))
    await peer.echoes(content)


# Closing.

CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014)


@pytest.mark.parametrize("code", [*CODES, 3000, 3999, 4000, 4999])
@pytest.mark.parametrize("reason", ["", "a reason, häßlich"])
@opened
async def test_close_of_the_client_is_echoed(peer: Peer, code: int, reason: str) -> None:
    await peer.send(RawFrame(CLOSE, close_payload(code, reason)))
    await peer.receives(RawFrame(CLOSE, close_payload(code, reason)))
    await peer.is_closed()
    await peer.app.has_ended(code, reason)


@opened
async def test_close_without_a_code_is_echoed(peer: Peer) -> None:
    await peer.send(RawFrame(CLOSE))
    await peer.receives(RawFrame(CLOSE))
    await peer.is_closed()
    await peer.app.has_ended(1005, "")


@opened
async def test_close_with_the_longest_reason_is_echoed(peer: Peer) -> None:
    await peer.send(RawFrame(CLOSE, close_payload(1000, "x" * 123)))
    await peer.receives(RawFrame(CLOSE, close_payload(1000, "x" * 123)))
    await peer.is_closed()
    await peer.app.has_ended(1000, "x" * 123)


@opened
async def test_close_in_pieces_is_echoed(peer: Peer) -> None:
    data = RawFrame(CLOSE, close_payload(1000, "reason")).encode()
    await peer.client.send(*(data[n : n + 1] for n in range(len(data))))
    await peer.receives(RawFrame(CLOSE, close_payload(1000, "reason")))
    await peer.is_closed()
    await peer.app.has_ended(1000, "reason")


@pytest.mark.parametrize("reason", [b"\xff", b"\xe2\x82", b"ok \xed\xa0\x80"])
@opened
async def test_close_reason_that_is_not_utf8_fails_the_connection_with_1007(
    peer: Peer, reason: bytes
) -> None:
    await peer.send(RawFrame(CLOSE, close_payload(1000, reason)))
    await peer.is_failed(1007)


@opened
async def test_frames_after_a_close_are_dropped(peer: Peer) -> None:
    await peer.send(
        RawFrame(CLOSE, close_payload(1000)),
        peer.app.message("late"),
        RawFrame(PING, b"late"),
        RawFrame(CLOSE, close_payload(1001)),
    )
    await peer.receives(RawFrame(CLOSE, close_payload(1000)))
    await peer.is_closed()
    await peer.app.has_ended(1000, "")


@opened
async def test_message_before_a_close_in_one_piece_is_received(peer: Peer) -> None:
    await peer.send(peer.app.message("last"), RawFrame(CLOSE, close_payload(1000)))
    rest = await peer.client.read_rest()
    assert rest.endswith(bytes([0x88, 2]) + close_payload(1000))
    await peer.app.has_ended(1000, "")


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1013, "too slow"), (4321, "häßlich")])
@opened
async def test_close_of_the_server_ends_with_that_of_the_client(
    peer: Peer, code: int, reason: str
) -> None:
    await peer.app.close(code, reason)
    await peer.receives(RawFrame(CLOSE, close_payload(code, reason)))
    await peer.send(RawFrame(CLOSE, close_payload(code, reason)))
    await peer.is_closed()
    await peer.app.has_ended(code, reason)


@opened
async def test_client_may_send_until_it_receives_the_close_of_the_server(peer: Peer) -> None:
    await peer.app.close(1000, "bye")
    await peer.receives(RawFrame(CLOSE, close_payload(1000, "bye")))
    first, second = fragments(TEXT, peer.app.message("late").payload, 3)
    await peer.send(peer.app.message("late"), first, RawFrame(PING, b"late"), second)
    await peer.receives(RawFrame(PONG, b"late"))
    await peer.send(RawFrame(CLOSE, close_payload(1001)))
    await peer.is_closed()
    await peer.app.has_ended(1000, "bye")


@opened
async def test_violation_after_the_close_of_the_server_ends_the_connection(peer: Peer) -> None:
    await peer.app.close(1000, "bye")
    await peer.receives(RawFrame(CLOSE, close_payload(1000, "bye")))
    await peer.send(RawFrame(3))
    await peer.is_closed()


@opened
async def test_closes_that_cross_end_the_connection(peer: Peer) -> None:
    await peer.send(RawFrame(CLOSE, close_payload(4001, "client")))
    await peer.app.close(4002, "server")
    frame = await peer.client.read()
    assert frame.payload in (close_payload(4001, "client"), close_payload(4002, "server"))
    await peer.is_closed()


@opened
async def test_end_without_a_close_is_reported_as_1005(peer: Peer) -> None:
    await peer.is_alive()
    peer.client.close()
    await peer.app.has_ended(1005, None)


@opened
async def test_end_within_a_frame_is_reported_as_1005(peer: Peer) -> None:
    await peer.is_alive()
    await peer.client.send(peer.app.message("cut off").encode()[:-3])
    peer.client.half_close()
    await peer.is_closed()
    await peer.app.has_ended(1005, None)


@opened
async def test_stop_of_the_server_closes_with_1012(peer: Peer) -> None:
    await peer.is_alive()
    peer.protocol.shutdown()
    await peer.receives(RawFrame(CLOSE, close_payload(1012)))
    await peer.is_closed()


# Sizes.


@pytest.mark.parametrize("kind", [str, bytes])
@opened
async def test_length_above_the_limit_fails_the_connection_with_1009(peer: Peer, kind: Any) -> None:
    message = peer.app.message(sized(peer, kind, MAX_SIZE + 1))
    await peer.client.send(message.encode()[:10])
    await peer.is_failed(1009)


@pytest.mark.parametrize("kind", [str, bytes])
@opened
async def test_message_above_the_limit_in_one_piece_fails_the_connection_with_1009(
    peer: Peer, kind: Any
) -> None:
    message = peer.app.message(sized(peer, kind, MAX_SIZE + 1))
    peer.protocol.data_received(message.encode())  # a socket may cut it
    await peer.is_failed(1009)


@opened
async def test_length_of_63_bits_fails_the_connection_with_1009(peer: Peer) -> None:
    await peer.client.send(bytes([0x81, 0xFF]) + (2**63 - 1).to_bytes(8, "big"))
    await peer.is_failed(1009)


@pytest.mark.parametrize("count", [2, 10])
@opened
async def test_fragments_above_the_limit_fail_the_connection_with_1009(
    peer: Peer, count: int
) -> None:
    payload = peer.app.message(sized(peer, str, MAX_SIZE + 1)).payload
    step = len(payload) // count + 1
    *first, last = fragments(TEXT, payload, *range(step, len(payload), step))
    await peer.send(*first)
    await peer.client.send(last.encode()[:8])
    await peer.is_failed(1009)


@opened
async def test_many_messages_together_above_the_limit_are_echoed(peer: Peer) -> None:
    content = sized(peer, str, 60_000)
    for _ in range(3):
        half = 30_000
        await peer.send(*fragments(TEXT, peer.app.message(content).payload, half))
        await peer.echoes(content)


# Back-pressure: of a client that does not read, and of a channel that handles nothing.


@pytest.mark.parametrize("size", [200, 60_000])
@served
async def test_messages_of_a_slow_reader_are_echoed_in_order(peer: Peer, size: int) -> None:
    await peer.open(buffers=32768)
    contents = [f"{n:06}".ljust(size, "x") for n in range(2_000_000 // size if size > 999 else 500)]
    data = b"".join(peer.app.message(content).encode() for content in contents)
    sending = asyncio.create_task(peer.client.send(data))
    if size > 999:
        await until(lambda: not peer.protocol.writable.is_set(), "the buffers are full")
        assert not sending.done()
    await peer.echoes(*contents)
    await sending
    await peer.is_alive()


@channels_only
async def test_broadcasts_reach_a_slow_reader_in_order(peer: Peer) -> None:
    await peer.open(buffers=32768)
    socket = channels(peer).made.socket
    for number in range(100):
        await socket.broadcast("room:1", "news", {"n": number, "text": "x" * 30_000})
    await until(lambda: not peer.protocol.writable.is_set(), "the buffers are full")
    for number in range(100, 110):  # while the client reads
        await socket.broadcast("room:1", "news", {"n": number})
        await peer.send(RawFrame(PING, b"%d" % number))
    frames = list[RawFrame]()
    news = list[int]()
    while len(news) < 110 or RawFrame(PONG, b"109") not in frames:
        frames.append(await peer.read())
        news = [json.loads(one.payload)[4]["n"] for one in frames if one.opcode == TEXT]
    assert news == list(range(110))
    pongs = [frame.payload for frame in frames if frame.opcode == PONG]
    assert pongs == sorted(pongs)  # a server may answer the last of several pings alone
    await peer.is_alive()


@channels_only
async def test_reader_that_is_too_slow_is_closed_with_1013(peer: Peer) -> None:
    await peer.open(buffers=32768)
    socket = channels(peer).made.socket
    for number in range(200):
        await socket.broadcast("room:1", "news", {"n": number, "text": "x" * 30_000})
    frames = list[RawFrame]()
    while not frames or frames[-1].opcode == TEXT:
        frames.append(await peer.read())
    assert frames[-1] == RawFrame(CLOSE, close_payload(1013, "too slow"))
    news = [json.loads(frame.payload)[4]["n"] for frame in frames[:-1]]
    assert news == list(range(len(news)))
    assert 0 < len(news) < 200
    await peer.send(RawFrame(CLOSE, close_payload(1013)))
    await peer.is_closed()
    await peer.app.has_ended(1013, "too slow")


@channels_only
async def test_presences_of_a_slow_reader_fold_to_the_list(peer: Peer) -> None:
    await peer.open(buffers=32768)
    made = channels(peer).made
    join = json.dumps(["2", "0", "room:2", "phx_join", {"follow": True}]).encode()
    await peer.send(RawFrame(TEXT, join))
    handles = [made.presence.track("room:2", f"u{n}", owner=None) for n in range(50)]
    for number in range(40):
        for handle in handles:
            handle.update({"n": number, "text": "x" * 500})
        made.socket.flush_presences()
        await asyncio.sleep(0)
        if number % 4 == 0:
            handles.pop().untrack()
    await until(lambda: not peer.protocol.writable.is_set(), "the buffers are full")
    await made.socket.broadcast("room:2", "last", {})
    seen, is_last = Presence("2"), False
    expected = made.presence.list("room:2")
    while not is_last or seen.state != expected:
        frame = json.loads((await peer.read()).payload)
        is_last = is_last or frame[3] == "last"
        if frame[3].startswith("presence_"):
            seen.take(frame)
    for handle in handles:
        handle.untrack()


@pytest.mark.parametrize(("count", "size"), [(300, 0), (300, 1000), (100, 60_000)])
@channels_only
async def test_messages_beyond_a_waiting_handler_are_handled_in_order(
    peer: Peer, count: int, size: int
) -> None:
    await peer.open(buffers=32768)
    contents = [f"{n:06}".ljust(size, "x") for n in range(count)]
    data = b"".join(peer.app.message(content).encode() for content in contents)
    await peer.send(waiting())
    sending = asyncio.create_task(peer.client.send(data))
    if size:
        await until(lambda: is_paused(peer), "reading is paused")
        assert size < 60_000 or not sending.done()
    Gate.gate.set()
    await peer.echoes("waited", *contents)
    await sending
    await peer.is_alive()


@channels_only
async def test_client_that_goes_while_its_handler_waits_has_ended(peer: Peer) -> None:
    await peer.open()
    await peer.send(waiting(), *[peer.app.message("behind")] * 300)
    peer.client.close()
    await until(lambda: not peer.server.server.server_state.connections, "it holds the connection")
    await until(lambda: not connections(channels(peer).made.socket), "the client is not gone")
    Gate.gate.set()
    await peer.app.has_ended(1005, None)


@pytest.mark.usefixtures("each_carrier")
def test_client_that_goes_as_its_handler_begins_has_ended_before_it() -> None:
    async def main() -> None:
        limits = Limits(waiting=150)
        async with served_app(channels=[Gate], limits=limits) as made, ws_client(made) as ann:
            await ann.join("room:1", ref="1")
            assert made.server is not None
            (protocol,) = made.server.server_state.connections
            assert isinstance(protocol, WebSocketsSansIOProtocol)
            Gate.gate = asyncio.Event()
            # They spend the client's share before they fill the mailbox, so the handler begins
            # after it was full. It makes room by that, for one of those that are held.
            protocol.data_received(waiting().encode() * 300)
            for _ in range(20):
                await asyncio.sleep(0)
            protocol.transport.abort()
            await until(lambda: not connections(made.socket), "the client is not gone")
            Gate.gate.set()

    run(main())


@channels_only
async def test_close_of_the_server_while_reading_is_paused_ends_with_that_of_the_client(
    peer: Peer,
) -> None:
    await peer.open()
    # The server does not end it by itself, when its patience ends.
    peer.protocol.close_timeout = 1000.0
    await peer.send(waiting(), *[peer.app.message("x" * 1000)] * 1000)
    await until(lambda: is_paused(peer), "reading is paused")
    await peer.app.close(4000, "bye")
    await peer.receives(RawFrame(CLOSE, close_payload(4000, "bye")))
    await peer.send(RawFrame(CLOSE, close_payload(4000)))
    await peer.is_closed()
    Gate.gate.set()
    await peer.app.has_ended(4000, "bye")


def waiting() -> RawFrame:
    """A message whose handler waits until the gate is open, and then echoes."""
    return RawFrame(TEXT, json.dumps(["1", "1", "room:1", "wait", {"a": "waited"}]).encode())


def is_paused(peer: Peer) -> bool:
    """Whether the server does not read because events wait to be handled."""
    (connection,) = connections(channels(peer).made.socket)
    return connection.full and not peer.protocol.transport.is_reading()


# permessage-deflate.

#: The parameters of uvicorn, as it answers offers with.
WINDOW = "server_max_window_bits=12"
NEGOTIATED: dict[str, str | None] = {
    "permessage-deflate": WINDOW,
    "permessage-deflate; client_max_window_bits": f"{WINDOW}; client_max_window_bits=12",
    "permessage-deflate; client_max_window_bits=9": f"{WINDOW}; client_max_window_bits=9",
    "permessage-deflate; client_max_window_bits=15": f"{WINDOW}; client_max_window_bits=12",
    "permessage-deflate; server_max_window_bits=10": "server_max_window_bits=10",
    "permessage-deflate; server_max_window_bits=15": WINDOW,
    "permessage-deflate; server_no_context_takeover": f"server_no_context_takeover; {WINDOW}",
    "permessage-deflate; client_no_context_takeover": f"client_no_context_takeover; {WINDOW}",
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
    "server_max_window_bits=9; client_max_window_bits=10": (
        "server_no_context_takeover; client_no_context_takeover; "
        "server_max_window_bits=9; client_max_window_bits=10"
    ),
    "x-webkit-deflate-frame, permessage-deflate": WINDOW,
    "permessage-deflate; server_max_window_bits=16, permessage-deflate": WINDOW,
    "permessage-deflate; server_max_window_bits=8": None,
    "permessage-deflate; server_max_window_bits=7": None,
    "permessage-deflate; client_max_window_bits=16": None,
    "permessage-deflate; client_max_window_bits=x": None,
    "permessage-deflate; server_max_window_bits": None,
    "permessage-deflate; server_no_context_takeover=1": None,
    "permessage-deflate; unknown": None,
    "permessage-deflate; server_no_context_takeover; server_no_context_takeover": None,
    "x-webkit-deflate-frame": None,
}
DEFLATE = "permessage-deflate; client_max_window_bits"


async def open_with_deflate(peer: Peer, offer: str = DEFLATE) -> Deflate:
    """Connect with an offer of permessage-deflate that is accepted."""
    peer.deflate = Deflate(resets="no_context_takeover" in offer)
    headers = await peer.open(offer)
    assert headers["sec-websocket-extensions"] == f"permessage-deflate; {NEGOTIATED[offer]}"
    return peer.deflate


@pytest.mark.parametrize("offer", cases(NEGOTIATED))
@served
async def test_offer_of_compression_is_answered_with_its_parameters(peer: Peer, offer: str) -> None:
    expected = NEGOTIATED[offer]
    await peer.client.connect(peer.server.port)
    status, headers = await peer.client.handshake(
        peer.app.path, {"Sec-WebSocket-Extensions": offer}
    )
    assert status == 101
    answer = None if expected is None else f"permessage-deflate; {expected}"
    assert headers.get("sec-websocket-extensions") == answer


@pytest.mark.parametrize(
    "offer",
    [
        DEFLATE,
        "permessage-deflate; server_max_window_bits=10",
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
        "server_max_window_bits=9; client_max_window_bits=10",
    ],
)
@served
async def test_compressed_messages_are_echoed_compressed(peer: Peer, offer: str) -> None:
    deflate = await open_with_deflate(peer, offer)
    contents: list[str | bytes] = ["text " * 1000, b"bytes " * 1000, "", CHARACTERS, "text " * 1000]
    await peer.send(*(deflate.compress(peer.app.message(content)) for content in contents))
    await peer.echoes(*contents)
    await peer.is_alive()


@served
async def test_each_size_of_compressed_messages_is_echoed(peer: Peer) -> None:
    deflate = await open_with_deflate(peer)
    for size in (100, 126, 2043, 2044, 2045, 4096, 65535, 65536):
        content = sized(peer, str, size)
        await peer.send(deflate.compress(peer.app.message(content)))
        await peer.echoes(content)


@served
async def test_incompressible_messages_are_echoed(peer: Peer) -> None:
    deflate = await open_with_deflate(peer)
    content = Random(1).randbytes(50_000)
    await peer.send(deflate.compress(peer.app.message(content)))
    await peer.echoes(content)
    await peer.is_alive()


@served
async def test_messages_need_not_be_compressed_where_it_was_negotiated(peer: Peer) -> None:
    deflate = await open_with_deflate(peer)
    for number in range(4):
        content = f"message {number}"
        message = peer.app.message(content)
        await peer.send(deflate.compress(message) if number % 2 else message)
        await peer.echoes(content)
        await peer.send(*fragments(TEXT, message.payload, 3))
        await peer.echoes(content)


@pytest.mark.parametrize("cuts", [(1,), (0,), (5, 5), (2, 9, 20), tuple(range(25))])
@served
async def test_fragments_of_a_compressed_message_are_joined(
    peer: Peer, cuts: tuple[int, ...]
) -> None:
    deflate = await open_with_deflate(peer)
    for content in ("in fragments " * 9, b"in fragments " * 9):
        message = deflate.compress(peer.app.message(content))
        first, *others = fragments(message.opcode, message.payload, *cuts, rsv=RSV1)
        await peer.send(first, RawFrame(PING, b"1"), *others)
        await peer.receives(RawFrame(PONG, b"1"))
        await peer.echoes(content)
    await peer.is_alive()


@served
async def test_compressed_message_in_pieces_is_echoed(peer: Peer) -> None:
    deflate = await open_with_deflate(peer)
    content = "in pieces " * 9
    data = deflate.compress(peer.app.message(content)).encode()
    await peer.client.send(*(data[n : n + 1] for n in range(len(data))))
    await peer.echoes(content)
    await peer.is_alive()


@served
async def test_control_frames_are_never_compressed(peer: Peer) -> None:
    await open_with_deflate(peer)
    await peer.send(RawFrame(PING, b"x" * 125))
    await peer.receives(RawFrame(PONG, b"x" * 125))
    await peer.app.close(1000, "bye")
    await peer.receives(RawFrame(CLOSE, close_payload(1000, "bye")))
    await peer.send(RawFrame(CLOSE, close_payload(1000)))
    await peer.is_closed()


COMPRESSED_VIOLATIONS: dict[str, tuple[RawFrame, ...]] = {
    "RSV1 of a ping": (RawFrame(PING, rsv=RSV1),),
    "RSV2 of a text": (RawFrame(TEXT, b"[]", rsv=RSV2),),
    "RSV1 and RSV2 of a text": (RawFrame(TEXT, b"\x00", rsv=RSV1 | RSV2),),
    "RSV1 of a later fragment": (
        RawFrame(TEXT, b"\xaa", fin=False, rsv=RSV1),
        RawFrame(CONT, b"\x00", rsv=RSV1),
    ),
    "RSV1 of a later fragment alone": (
        RawFrame(TEXT, b"[", fin=False),
        RawFrame(CONT, b"]", rsv=RSV1),
    ),
    "data that are not deflated": (RawFrame(TEXT, b"\xff\xff\xff\xff", rsv=RSV1),),
    "data that are not deflated, in a fragment": (
        RawFrame(BINARY, b"", fin=False, rsv=RSV1),
        RawFrame(CONT, b"\xff\xff\xff"),
    ),
}


@pytest.mark.parametrize("name", cases(COMPRESSED_VIOLATIONS))
@served
async def test_violation_with_compression_fails_the_connection_with_1002(
    peer: Peer, name: str
) -> None:
    await open_with_deflate(peer)
    await peer.is_alive()
    await peer.send(*COMPRESSED_VIOLATIONS[name])
    await peer.is_failed(1002)


@served
async def test_compressed_text_that_is_not_utf8_fails_the_connection_with_1007(
    peer: Peer,
) -> None:
    deflate = await open_with_deflate(peer)
    await peer.send(deflate.compress(RawFrame(TEXT, b"\xc0\xaf")))
    await peer.is_failed(1007)


@pytest.mark.parametrize("cuts", [(), (10,), (0, 20)])
@served
async def test_decompression_bomb_fails_the_connection_with_1009(
    peer: Peer, cuts: tuple[int, ...]
) -> None:
    deflate = await open_with_deflate(peer)
    message = deflate.compress(RawFrame(BINARY, bytes(1_000_000)))
    assert len(message.payload) < MAX_SIZE
    await peer.send(*fragments(BINARY, message.payload, *cuts, rsv=RSV1))
    await peer.is_failed(1009)


@served
async def test_compressed_message_just_above_the_limit_fails_the_connection_with_1009(
    peer: Peer,
) -> None:
    deflate = await open_with_deflate(peer)
    await peer.send(deflate.compress(peer.app.message(sized(peer, str, MAX_SIZE + 1))))
    await peer.is_failed(1009)


# Handshakes.

REQUESTS: dict[str, tuple[int, dict[str, str | None]]] = {
    "valid": (101, {}),
    "upgrade in other case": (101, {"Upgrade": "WebSocket"}),
    "further tokens of the connection": (101, {"Connection": "keep-alive, upgrade"}),
    "no version": (400, {"Sec-WebSocket-Version": None}),
    "old version": (400, {"Sec-WebSocket-Version": "8"}),
    "version that is no number": (400, {"Sec-WebSocket-Version": "thirteen"}),
    "two versions": (400, {"Sec-WebSocket-Version": "13, 8"}),
    "no key": (400, {"Sec-WebSocket-Key": None}),
    "empty key": (400, {"Sec-WebSocket-Key": ""}),
    "short key": (400, {"Sec-WebSocket-Key": "AAAA"}),
    "long key": (400, {"Sec-WebSocket-Key": "A" * 24}),
    "key that is not base64": (400, {"Sec-WebSocket-Key": "?" * 24}),
    "malformed extensions": (400, {"Sec-WebSocket-Extensions": "permessage-deflate; ;"}),
}


@pytest.mark.parametrize("name", REQUESTS)
@served
async def test_handshake_is_answered_with_its_status(peer: Peer, name: str) -> None:
    expected, changes = REQUESTS[name]
    await peer.client.connect(peer.server.port)
    status, headers = await peer.client.handshake(peer.app.path, changes)
    assert status == expected
    if expected == 101:
        assert headers["sec-websocket-accept"] == ACCEPT
        assert headers["upgrade"].lower() == "websocket"
        assert headers["connection"].lower() == "upgrade"
        await peer.app.begin(peer)
        await peer.is_alive()
    else:
        assert "sec-websocket-accept" not in headers
        await peer.client.read_rest()


@served
async def test_handshake_with_two_keys_is_refused(peer: Peer) -> None:
    await peer.client.connect(peer.server.port)
    more = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    status, _ = await peer.client.handshake(peer.app.path, more=more)
    assert status == 400


@MENDED_IN_17_0
@served
async def test_handshake_by_post_is_refused(peer: Peer) -> None:
    await peer.client.connect(peer.server.port)
    status, _ = await peer.client.handshake(peer.app.path, line="POST {path} HTTP/1.1")
    assert status == 405


@pytest.mark.parametrize(
    ("offered", "accepted"),
    [(None, None), ("phoenix", "phoenix"), ("other, phoenix", "phoenix")],
)
@served
async def test_subprotocol_of_the_application_is_accepted(
    peer: Peer, offered: str | None, accepted: str | None
) -> None:
    await peer.client.connect(peer.server.port)
    _, headers = await peer.client.handshake(peer.app.path, {"Sec-WebSocket-Protocol": offered})
    assert headers.get("sec-websocket-protocol") == accepted
