"""Clients with binary frames of their own: what they send and are sent, and errors on the way."""

import json
from typing import Any

import pytest

from adsum.channels import BinaryFrames, Channel, Frame, Socket, on
from adsum.errors import ConfigurationError

from .app import App
from .asgi_client import asgi_client
from .asgi_poller import AsgiPoller
from .captured_log import Log
from .leak_check import leak_checked

pytestmark = pytest.mark.usefixtures("each_carrier")

MARKER = "the-marker"


class Room(Channel, topic="room:{room}"):
    """Broadcasts what it is sent, and replies with it."""

    @on("bytes")
    async def on_bytes(self, payload: Any) -> Any:
        await self.broadcast("bytes", payload)
        return payload

    @on("json")
    async def on_json(self, payload: Any) -> Any:
        await self.broadcast("json", payload)


class Kinds(BinaryFrames):
    """Kind 9 has a room of one byte, and then bytes; kind 8 has JSON; others test errors."""

    def decode(self, data: bytes) -> Frame:
        kind, room = data[0], f"room:{data[1:2].decode()}"
        if kind == 9:
            return Frame("1", "9", room, "bytes", data[2:])
        if kind == 8:
            return Frame("1", "8", room, "json", json.loads(data[2:]))
        if kind == 7:
            raise KeyError(data.decode())
        if kind == 6:
            raise TypeError("a mistake of the application")
        if kind == 5:
            return Frame(None, None, "r" * 2000, "bytes", b"")
        if kind == 4:
            return json.loads(data[1:])  # type: ignore[no-any-return]  # a mistake
        return super().decode(data)

    def broadcast(self, topic: str, event: str, payload: bytes) -> bytes:
        if payload == b"mistake":
            raise RuntimeError("a mistake of the application")
        if payload == b"text":
            return "text"  # type: ignore[return-value]  # a mistake
        return bytes([9, ord(topic[5])]) + payload


def app() -> App:
    return App(Room, binary_frames=Kinds())


@leak_checked
async def test_binary_frames_of_an_application_are_decoded_and_encoded_by_it() -> None:
    one = app()
    async with one.node, asgi_client(one.socket) as ann, asgi_client(one.socket) as bob:
        assert await ann.join("room:1") == await bob.join("room:1")
        ann.send(b"\x091\x00\xff")
        assert await bob.read() == b"\x091\x00\xff"
        assert await ann.read() == b"\x091\x00\xff"
        # The reply has the form of phoenix.js.
        assert await ann.read() == b"\x01\x01\x01\x06\x0219room:1ok\x00\xff"
        await one.socket.broadcast("room:1", "any", b"\x01")
        assert await bob.read() == b"\x091\x01"


@leak_checked
async def test_json_frames_are_the_same_with_binary_frames_of_an_application() -> None:
    one = app()
    async with one.node, asgi_client(one.socket) as ann:
        await ann.join("room:1")
        ann.send(b'\x081{"n": [1]}')
        assert await ann.read() == '[null,null,"room:1","json",{"n":[1]}]'
        ann.push("1", "2", "room:1", "json", {"n": 2})
        assert await ann.read() == '[null,null,"room:1","json",{"n":2}]'
        ann.send(b"\x00\x01\x01\x06\x0515room:1bytes\x02")
        assert await ann.read() == b"\x091\x02"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x09\xff" + MARKER.encode(),
        b"\x081" + MARKER.encode(),
        b"\x081" + b"[" * 60_000 + MARKER.encode(),
        b"\x07" + MARKER.encode(),
        b"\x05" + MARKER.encode(),
        b"\xff" + MARKER.encode(),
    ],
)
def test_binary_message_that_is_refused_ends_the_connection_with_one_line(
    log: Log, data: bytes
) -> None:
    @leak_checked
    async def scenario() -> None:
        one = app()
        async with one.node, asgi_client(one.socket) as ann:
            ann.send(data)
            await ann.served()
            assert ann.closed == 1011

    scenario()
    (line,) = log.lines
    assert "was disconnected: malformed frame: " in line
    assert MARKER not in log.everything


@pytest.mark.parametrize(
    "data", [b"\x061", b'\x04{"no": "frame"}', b"\x04[1, 2]", b"\x0417", b"\x04null"]
)
def test_crash_of_the_decoder_ends_the_connection_and_is_logged(log: Log, data: bytes) -> None:
    @leak_checked
    async def scenario() -> None:
        one = app()
        async with one.node, asgi_client(one.socket) as bob:
            async with asgi_client(one.socket) as ann:
                ann.send(data)
                await ann.served()
                assert ann.closed == 1011
            await bob.is_alive()

    scenario()
    crash, _ = log.lines
    assert "a binary message could not be decoded" in crash
    assert "Traceback" in log.everything


@pytest.mark.parametrize("payload", [b"mistake", b"text"])
def test_crash_of_the_encoder_is_logged_and_disturbs_no_other_broadcast(
    log: Log, payload: bytes
) -> None:
    @leak_checked
    async def scenario() -> None:
        one = app()
        phoenix = Socket(one.presence, [Room])
        async with one.node, asgi_client(one.socket) as ann, asgi_client(phoenix) as bob:
            await ann.join("room:1")
            await bob.join("room:1")
            await one.socket.broadcast("room:1", "bytes", payload)
            assert await bob.read() == b"\x02\x06\x05room:1bytes" + payload
            await one.socket.broadcast("room:1", "bytes", b"\x01")
            assert await ann.read() == b"\x091\x01"

    scenario()
    assert "a broadcast of bytes could not be encoded" in log.lines[0]
    assert "binary_frames of its socket raised an error" in log.lines[1]
    assert "Traceback" in log.everything


def test_client_of_version_1_and_polling_client_are_sent_no_binary_frames(log: Log) -> None:
    @leak_checked
    async def scenario() -> None:
        one = app()
        poller = AsgiPoller(one.socket)
        async with one.node, asgi_client(one.socket, "vsn=1.0.0") as ann:
            await poller.begin()
            await poller.post(["1", "1", "room:1", "phx_join", {}])
            assert len((await poller.get())["messages"]) == 1
            ann.send('{"topic":"room:1","event":"phx_join","payload":{},"ref":"1"}')
            await ann.read()
            await one.socket.broadcast("room:1", "bytes", b"\x01")
            await one.socket.broadcast("room:1", "json", {})
            assert json.loads(str(await ann.read()))["event"] == "json"
            (message,) = (await poller.get())["messages"]
            assert json.loads(message)[3] == "json"

    scenario()
    assert len(log.lines) == 2
    assert all("cannot receive binary payloads" in line for line in log.lines)


@pytest.mark.parametrize("value", [Kinds, "binary", {3: Kinds()}])
def test_binary_frames_that_are_no_instance_are_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"binary_frames=.*: must be an instance of"):
        App(Room, binary_frames=value)
