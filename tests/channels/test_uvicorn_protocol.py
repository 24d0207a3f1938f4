"""The WebSocket protocol for uvicorn equals uvicorn's own, however the stream is cut."""

import asyncio
import tomllib
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hypothesis import example, given
from hypothesis import strategies as st
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from adsum.channels.flow.fairshare import BUDGET, WORK
from adsum.channels.uvicorn import (
    _BITE,
    UVICORN,
    WEBSOCKETS,
    DirectTransport,
    WebSocketProtocol,
    check_version,
)
from adsum.channels.wire.prepared import Prepared
from adsum.channels.wire.wsframes import COMPRESSED
from tests.interpreters import OLDEST
from tests.support.effort import examples
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
#: Bytes of the longest message.
LIMIT = 300
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"


class FakeTransport(asyncio.Transport):
    """The transport of a client: what was written, and whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closing = False
        self.paused = self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Served:
    """One connection to an application that records all that it receives.

    Args:
        kind: The class of the protocol.
        open_directly: Whether the application uses the extension.
        pauses: Numbers of messages at which it pauses reading.
    """

    def __init__(
        self,
        kind: type[WebSocketsSansIOProtocol],
        *,
        open_directly: bool = False,
        pauses: Sequence[int] = (),
        crash: str = "",
    ) -> None:
        config = uvicorn.Config(
            self._app, interface="asgi3", ws_max_size=LIMIT, ws_ping_interval=None, log_config=None
        )
        config.load()
        self.protocol = kind(config, ServerState(), {})
        self.wire = FakeTransport()
        self.events: list[Any] = []
        self.direct: DirectTransport | None = None
        self._open_directly = open_directly
        self._pauses = pauses
        self._messages = 0
        self._crash = crash
        self.done = False

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if self._open_directly:
            self.over = asyncio.get_running_loop().create_future()
            self.direct = scope["extensions"]["adsum.direct"]["open"](self)
            self.direct.resume_reading()
            await self.over
        else:
            while (event := await receive())["type"] == "websocket.receive":
                self.events.append(event.get("text", event.get("bytes")))
            self.events.append((event["code"], event.get("reason") or ""))
        self.done = True

    def received(self, data: str | bytes) -> None:
        if self._crash == "received":
            raise RuntimeError("the receiver crashes")
        self.events.append(data)
        self._messages += 1
        if self._messages in self._pauses:
            assert self.direct is not None
            self.direct.pause_reading()

    def writable(self) -> None:
        self.events.append("writable")

    def ended(self, code: int, reason: str) -> None:
        assert not self.done
        self.events.append((code, reason))
        self.over.set_result(None)

    async def open(self, extensions: str = "", behind: bytes = b"") -> None:
        """Complete the handshake."""
        self.protocol.connection_made(self.wire)
        head = (
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            f"{extensions}\r\n"
        )
        self.protocol.data_received(head.encode() + behind)
        await self.turns()
        assert self.wire.written.startswith(b"HTTP/1.1 101 ")
        await self.turns()

    async def turns(self) -> None:
        """Let the application receive what is queued."""
        for _ in range(6):
            await asyncio.sleep(0)

    async def feed(self, chunks: Sequence[bytes]) -> None:
        """Receive from the client, as far as the transport is open; then it disconnects."""
        for chunk in chunks:
            if not self.wire.closing:
                self.protocol.data_received(chunk)
                await self.turns()
                if self.direct is not None:
                    self.direct.resume_reading()
        for _ in self._pauses:
            if self.direct is not None:
                self.direct.resume_reading()
        self.protocol.connection_lost(None)
        await self.turns()
        assert self.done


def masked(first: int, payload: bytes, *, wide: int = 0, mask: bytes = b"mask") -> bytes:
    """A frame of a client; `wide` is the least form of its length, in bytes."""
    size = len(payload)
    if size < 126 and not wide:
        head = bytes((first, 0x80 | size))
    elif size < 65536 and wide <= 2:
        head = bytes((first, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0xFF)) + size.to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def deflated(text: bytes) -> bytes:
    """A compressed message that refers to nothing before it."""
    compressor = zlib.compressobj(wbits=-9)
    return (compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


payloads = st.binary(max_size=140) | st.text(max_size=60).map(str.encode)
large = st.integers(LIMIT - 2, LIMIT + 2).map(lambda size: b"x" * size)
masks = st.binary(min_size=4, max_size=4)
data_frames = st.builds(
    masked,
    st.sampled_from([0x81, 0x82]),
    payloads | large,
    wide=st.sampled_from([0, 0, 0, 2, 8]),
    mask=masks,
)
other_frames = st.builds(
    masked,
    # Fragments, pings, pongs, closes, reserved bits and opcodes, fragmented control frames.
    st.sampled_from([0x01, 0x02, 0x00, 0x80, 0x89, 0x8A, 0x88, 0xC1, 0xA1, 0x83, 0x09, 0x8B]),
    payloads | large,
    wide=st.sampled_from([0, 0, 0, 2]),
    mask=masks,
)
texts = st.text(max_size=60).map(lambda text: masked(0x81, text.encode()))
pings = st.binary(max_size=125).map(lambda data: masked(0x89, data))
fragmented = st.tuples(st.text(max_size=30), st.lists(pings, max_size=1)).map(
    lambda made: masked(0x01, made[0].encode()) + b"".join(made[1]) + masked(0x80, b"end")
)
compressed = st.text(max_size=60).map(lambda text: masked(0xC1, deflated(text.encode())))
closes = st.sampled_from([1000, 1001, 1005, 3000, 99]).map(
    lambda code: masked(0x88, code.to_bytes(2, "big") + b"bye")
)
unmasked = st.binary(max_size=9).map(lambda data: bytes((0x81, len(data))) + data)
#: Mostly valid, so that invalid frames follow some state.
streams = st.lists(
    st.one_of(
        texts,
        texts,
        texts,
        data_frames,
        pings,
        fragmented,
        compressed,
        other_frames,
        closes,
        unmasked,
    ),
    max_size=12,
).flatmap(lambda frames: st.just(b"".join(frames)) | garbled(b"".join(frames)))


def garbled(stream: bytes) -> st.SearchStrategy[bytes]:
    """A stream with some bytes of garbage in it."""
    return st.tuples(st.integers(0, len(stream)), st.binary(max_size=8)).map(
        lambda made: stream[: made[0]] + made[1] + stream[made[0] :]
    )


def cut(stream: bytes, sizes: Sequence[int]) -> list[bytes]:
    """A stream in chunks of these sizes, over and over."""
    chunks: list[bytes] = []
    at = 0
    while at < len(stream):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(stream[at : at + size])
        at += size
    return chunks


sizes = st.lists(st.integers(1, 20) | st.integers(1, 2000), min_size=1, max_size=8)


async def outcome(served: Served, extensions: str, chunks: Sequence[bytes]) -> Any:
    await served.open(extensions)
    await served.feed(chunks)
    return served.events, served.wire.written, served.wire.closing


@examples(300)
@given(streams, sizes, st.sets(st.integers(1, 6)), st.sampled_from(["", DEFLATE]))
@example(masked(0x81, b"\xff") + masked(0x81, b"behind"), [1000], set(), "")
@example(masked(0x81, b"\xff") + masked(0x89, b""), [1000], set(), "")
@example(masked(0x88, b"\x03\xe8") + masked(0x81, b"\xff"), [1000], set(), "")
@example(masked(0x88, b"\x03\xe8") + masked(0x81, b"behind"), [1000], set(), "")
@example(masked(0x01, b"a") + masked(0x81, b"b") + masked(0x80, b"c"), [1000], set(), "")
@example(masked(0x81, b"") + masked(0x82, b""), [3], {1}, "")
@example(masked(0x81, b"x" * 130) + masked(0x81, b"x" * (LIMIT + 1)), [1000], set(), "")
def test_any_stream_in_any_cuts_has_the_outcome_of_uvicorns_protocol(
    stream: bytes, sizes: list[int], pauses: set[int], extensions: str
) -> None:
    async def main() -> None:
        # Byte for byte, uvicorn handles each frame before it sees the next.
        expected = await outcome(Served(WebSocketsSansIOProtocol), extensions, cut(stream, [1]))
        chunks = cut(stream, sizes)
        assert await outcome(Served(WebSocketProtocol), extensions, chunks) == expected
        direct = Served(WebSocketProtocol, open_directly=True, pauses=sorted(pauses))
        assert await outcome(direct, extensions, chunks) == expected

    asyncio.run(main())


def test_frames_behind_the_request_are_left_to_the_parser() -> None:
    async def main() -> None:
        inner = masked(0x81, b"inner")
        frame = masked(0x82, inner, mask=bytes(4))  # whose payload is a frame
        for at in range(len(frame) + 1):
            served = Served(WebSocketProtocol)
            await served.open(behind=frame[:at])
            await served.feed([frame[at:], masked(0x81, b"next")])
            assert served.events == [inner, "next", (1005, "")]

    asyncio.run(main())


def test_messages_before_opening_are_delivered_first() -> None:
    async def main() -> None:
        served = Served(WebSocketProtocol, open_directly=True, pauses=[1, 2])
        early = masked(0x81, b"first") + masked(0x82, b"second")
        await served.open(behind=early)
        await served.feed([masked(0x81, b"third")])
        assert served.events == ["first", b"second", "third", (1005, "")]

    asyncio.run(main())


class ParsingClient:
    """A client that parses, with websockets, all that a direct connection writes."""

    def __init__(self, served: Served, extensions: str) -> None:
        self.served = served
        factory = [ClientPerMessageDeflateFactory(client_max_window_bits=True)]
        self._client = ClientProtocol(
            parse_uri("ws://x/"), extensions=factory if extensions else None, max_size=None
        )
        self._client.connect()
        self._client.key = "AAAAAAAAAAAAAAAAAAAAAA=="

    def frames(self) -> list[Frame]:
        self._client.receive_data(self.served.wire.written)
        self.served.wire.written = b""
        events = self._client.events_received()
        for event in events:
            if isinstance(event, Response):
                self._client.process_response(event)
                self._client.state = State.OPEN
        assert self._client.parser_exc is None
        return [event for event in events if isinstance(event, Frame)]


messages = (
    st.text(max_size=200)
    | st.binary(max_size=200)
    | st.integers(120, 130).map(lambda size: "x" * size)
    | st.integers(65530, 65540).map(lambda size: b"ab" * (size // 2))
    | st.text("abcé", min_size=COMPRESSED, max_size=2 * COMPRESSED)
)


@examples(60)
@given(st.lists(st.tuples(messages, st.booleans()), max_size=6), st.sampled_from(["", DEFLATE]))
def test_written_messages_are_parsed_by_a_client(
    sent: list[tuple[str | bytes, bool]], extensions: str
) -> None:
    async def main() -> None:
        served = Served(WebSocketProtocol, open_directly=True)
        client = ParsingClient(served, extensions)
        await served.open(extensions)
        assert client.frames() == []
        assert served.direct is not None
        for message, prepared in sent:
            for _ in range(2):
                frame = Prepared(message) if prepared else message
                assert served.direct.write(frame)
                assert served.direct.write(frame)
        await served.protocol.send({"type": "websocket.send", "text": "by ASGI" * 100})
        expected = [
            (Opcode.TEXT, message.encode())
            if isinstance(message, str)
            else (Opcode.BINARY, message)
            for message, _ in sent
            for _ in range(4)
        ]
        expected.append((Opcode.TEXT, b"by ASGI" * 100))
        assert [(frame.opcode, bytes(frame.data)) for frame in client.frames()] == expected
        await served.feed([])

    asyncio.run(main())


def test_prepared_frame_is_compressed_once_for_all_clients() -> None:
    frame = Prepared("word " * 1000)
    assert frame.compressed(12) is frame.compressed(12)
    assert len(frame.compressed(12)) < 200
    assert frame.plain() is frame.plain()
    assert frame.message is frame.plain()
    small = Prepared("[]")
    assert small.compressed(12) == small.plain()


def test_write_is_refused_without_room_and_after_the_end() -> None:
    async def main() -> None:
        served = Served(WebSocketProtocol, open_directly=True)
        await served.open()
        direct = served.direct
        assert direct is not None
        served.wire.written = b""
        served.protocol.pause_writing()
        assert (direct.has_room, direct.write("a")) == (False, False)
        served.protocol.resume_writing()
        assert direct.write("a")
        assert served.events == ["writable"]
        direct.close(1001, "bye")
        assert not direct.write("b")
        assert served.wire.written == b"\x81\x01a\x88\x05\x03\xe9bye"
        assert not served.wire.closing  # it waits for the client's close
        await served.feed([masked(0x81, b"ignored"), masked(0x88, b"\x03\xe9")])
        assert served.wire.closing
        assert served.events == ["writable", (1001, "bye")]

    asyncio.run(main())


def test_paused_connection_reads_the_answer_to_its_close() -> None:
    async def main() -> None:
        served = Served(WebSocketProtocol, open_directly=True, pauses=[1])
        await served.open()
        frames = [masked(0x81, b"first"), masked(0x81, b"second"), masked(0x88, b"\x03\xe8")]
        served.protocol.data_received(b"".join(frames))
        assert served.events == ["first"]
        assert served.direct is not None
        served.direct.close(1000, "")
        assert served.wire.closing  # the close was among the bytes that were not read
        assert served.events == ["first", (1000, "")]
        await served.feed([])

    asyncio.run(main())


def test_abort_ends_at_once() -> None:
    async def main() -> None:
        served = Served(WebSocketProtocol, open_directly=True)
        await served.open()
        assert served.direct is not None
        served.direct.abort()
        assert served.wire.closing
        assert not served.direct.write("a")
        await served.feed([masked(0x81, b"ignored")])
        assert served.events == [(1006, "")]

    asyncio.run(main())


def test_crash_of_a_receiver_closes_with_1011(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        served = Served(WebSocketProtocol, open_directly=True, crash="received")
        await served.open()
        served.wire.written = b""
        await served.feed([masked(0x81, b"first") + masked(0x81, b"second")])
        assert served.events == [(1011, "")]
        assert served.wire.written == b"\x88\x02\x03\xf3"

    asyncio.run(main())
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1


def test_direct_connection_is_opened_once_after_the_accept() -> None:
    async def main() -> None:
        served = Served(WebSocketProtocol, open_directly=True)
        await served.open()
        protocol = served.protocol
        assert isinstance(protocol, WebSocketProtocol)
        with pytest.raises(RuntimeError, match="once"):
            protocol.open_direct(served)
        with pytest.raises(RuntimeError, match=r"adsum\.direct"):
            await protocol.receive()
        await served.feed([])

    asyncio.run(main())


def test_server_shutdown_ends_with_1012() -> None:
    async def main() -> None:
        served = Served(WebSocketProtocol, open_directly=True)
        await served.open()
        served.wire.written = b""
        served.protocol.shutdown()
        assert served.events == [(1012, "")]
        assert served.wire.written == b"\x88\x02\x03\xf4"
        await served.feed([])

    asyncio.run(main())


@pytest.mark.parametrize("open_directly", [False, True])
@pytest.mark.parametrize("behind", [b"", masked(0x8A, b"")], ids=["tracked", "untracked"])
def test_small_frames_in_one_read_take_several_turns(open_directly: bool, behind: bytes) -> None:
    async def main() -> None:
        served = Served(WebSocketProtocol, open_directly=open_directly)
        # Behind the request, the boundaries of frames are not known.
        await served.open(behind=behind)
        ping, pong = masked(0x89, b""), b"\x8a\x00"
        most = 2 * BUDGET // WORK * (_BITE // len(ping) + 1 if behind else 1)
        count, turns = 4 * most, 0
        served.wire.written = b""
        served.protocol.data_received(ping * count + masked(0x81, b"mid") + ping * count)
        while served.wire.paused and turns < count:
            assert len(served.wire.written) <= most * len(pong)
            served.wire.written = b""
            await asyncio.sleep(0)
            turns += 1
        assert turns >= 8
        await served.feed([masked(0x81, b"end")])
        assert served.events == ["mid", "end", (1005, "")]

    asyncio.run(main())


def test_receiving_does_not_read_on_while_bytes_are_held() -> None:
    async def main() -> None:
        served = Served(WebSocketProtocol)
        await served.open()
        served.protocol.data_received(masked(0x81, b"first") + masked(0x89, b"") * 40_000)
        for _ in range(6):
            await asyncio.sleep(0)
            assert served.wire.paused
        assert served.events == ["first"]
        served.protocol.connection_lost(None)
        await served.turns()
        assert served.done

    asyncio.run(main())


def test_without_room_only_the_last_ping_is_answered() -> None:
    async def main() -> None:
        served = Served(WebSocketProtocol)
        await served.open()
        served.wire.written = b""
        served.protocol.pause_writing()
        served.protocol.data_received(masked(0x89, b"1") + masked(0x89, b"2"))
        assert served.wire.written == b""
        served.protocol.resume_writing()
        assert served.wire.written == b"\x8a\x012"
        served.protocol.data_received(masked(0x89, b"3"))
        assert served.wire.written == b"\x8a\x012\x8a\x013"
        await served.feed([])

    asyncio.run(main())


@pytest.mark.parametrize("how", ["close", "shutdown", "keepalive"])
def test_client_that_does_not_read_is_aborted_after_its_end(how: str) -> None:
    async def main() -> None:
        served = Served(WebSocketProtocol, open_directly=True)
        served.protocol.close_timeout = 0.0
        await served.open()
        if how == "close":
            served.protocol.data_received(masked(0x88, b"\x03\xe8"))
        elif how == "shutdown":
            served.protocol.shutdown()
        else:
            served.protocol.keepalive_timeout()
        assert served.wire.closing
        await until(lambda: served.wire.aborted, "it holds its socket")
        await served.feed([])

    asyncio.run(main())


def test_invalid_frame_before_the_accept_ends_the_connection() -> None:
    async def main() -> None:
        served = Served(WebSocketProtocol)
        with pytest.raises(AssertionError):  # the application accepts, but nothing is written
            await served.open(behind=b"\xff\xff")
        assert served.wire.aborted
        assert served.wire.written == b""

    asyncio.run(main())


def test_nothing_is_written_to_a_socket_that_has_failed() -> None:
    async def main() -> None:
        served = Served(WebSocketProtocol, open_directly=True)
        await served.open()
        served.wire.written, served.wire.closing = b"", True
        assert served.direct is not None
        assert not served.direct.write("a")
        served.protocol.data_received(masked(0x89, b""))
        assert served.wire.written == b""
        served.protocol.connection_lost(None)
        await served.turns()

    asyncio.run(main())


def test_text_that_is_not_utf8_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        served = Served(WebSocketProtocol, open_directly=True)
        await served.open()
        await served.feed([masked(0x81, b"\xff")])
        assert served.events == [(1007, "")]

    asyncio.run(main())
    assert not caplog.records


@pytest.mark.parametrize("found", ["0.52.9", "0.9.0", "unknown"])
def test_old_version_is_refused_by_name(found: str) -> None:
    with pytest.raises(ImportError, match=rf"uvicorn 0\.53 or newer, found {found}"):
        check_version("uvicorn", found, UVICORN)


@pytest.mark.parametrize("found", ["0.53", "0.53.0", "0.54.1", "1.0"])
def test_new_version_is_accepted(found: str) -> None:
    check_version("uvicorn", found, UVICORN)


def test_one_interpreter_has_the_oldest_versions() -> None:
    numbers = [library.partition("==")[2].split(".")[:2] for library in OLDEST[1:]]
    assert numbers == [[str(number) for number in oldest] for oldest in (UVICORN, WEBSOCKETS)]


def test_extra_installs_the_oldest_versions_or_newer() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extras["optional-dependencies"]["uvicorn"] == [
        "uvicorn>={}.{}".format(*UVICORN),
        "websockets>={}.{}".format(*WEBSOCKETS),
    ]


def test_option_and_environment_choose_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UVICORN_WS", "adsum.channels.uvicorn:WebSocketProtocol")
    options = uvicorn.main.make_context("uvicorn", ["app:app"]).params
    config = uvicorn.Config(lambda *_: None, interface="asgi3", ws=options["ws"], log_config=None)
    config.load()
    assert config.ws_protocol_class is WebSocketProtocol


def test_all_frames_are_logged_at_the_level_debug(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        served = Served(WebSocketProtocol, open_directly=True)
        await served.open()
        await served.feed([masked(0x81, b"plain"), masked(0x89, b"ping")])
        assert served.events[0] == "plain"

    with caplog.at_level("DEBUG", logger="uvicorn.error"):
        asyncio.run(main())
    for frame in ("TEXT 'plain'", "PING 'ping'"):
        assert any(line.startswith("< ") and frame in line for line in caplog.messages)
