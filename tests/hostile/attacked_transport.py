"""A node's transport in memory, a bystander that is linked to it, and a stranger without rules."""

import asyncio
import itertools
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Self

from adsum.replication.codec import decode, encode
from adsum.replication.messages import Heartbeat
from adsum.transport.contract import Link
from adsum.transport.frame_mac import FrameMac
from adsum.transport.framing import encode_payload
from adsum.transport.handshake import Handshake
from adsum.transport.options import TransportOptions
from tests.support.memory_transport import MemoryNetwork, MemoryTransport, connect
from tests.support.raw_peer import RawPeer, tagged
from tests.support.transports import Recorder, identity
from tests.support.waiting import until

SECRET = b"a secret of the cluster"


def constant(size: int) -> bytes:
    """No randomness at all, so that a handshake can be known in advance."""
    return bytes(size)


def genuine_greeting() -> tuple[bytes, FrameMac]:
    """All that a dialler with the secret says to the node until it is linked, and its next tags."""
    dialler = Handshake(identity("eve"), dialling=True, secret=SECRET, nonce=constant)
    acceptor = Handshake(identity("node"), dialling=False, secret=SECRET, nonce=constant)
    hello = dialler.start()
    greeting = hello + dialler.receive(*frame(acceptor.receive(*frame(hello))))
    assert dialler.outgoing is not None
    return greeting, dialler.outgoing


def genuine_frames(*frames: bytes) -> bytes:
    """Frames as they follow a greeting, with their tags."""
    _, mac = genuine_greeting()
    return tagged(b"".join(frames), mac)


def usual_frames() -> bytes:
    """Frames as they follow a greeting, one of them compressed."""
    large = b'[8,"room","event",{"text":"' + b"x" * 2000 + b'"}]'
    return genuine_frames(encode_payload(encode(Heartbeat(1, 1))), encode_payload(large))


def frame(stream: bytes) -> tuple[int, bytes]:
    """The only frame of a stream."""
    return stream[4], stream[5:]


def cut(stream: bytes, at: list[int]) -> list[bytes]:
    """A stream in chunks."""
    edges = [0, *sorted(position % (len(stream) + 1) for position in at), len(stream)]
    return [stream[one:other] for one, other in itertools.pairwise(edges)]


class Lines(logging.Handler):
    """The log lines of the project while the block runs; none of them may have a traceback."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self.faults: list[object] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is not None:
            self.faults.append(record.exc_info[1])
        self.lines.append(record.getMessage())

    def __enter__(self) -> Self:
        logging.getLogger("adsum").addHandler(self)
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        logging.getLogger("adsum").removeHandler(self)
        assert not self.faults, self.faults


class AttackedTransport:
    """A node with a bystander, and the strangers that it meets."""

    def __init__(self, nonce: Callable[[int], bytes] = constant) -> None:
        network = MemoryNetwork()
        options = TransportOptions(secret=SECRET, nonce=nonce)
        self.node = Recorder(on_frame=_decode)
        self.bystander = Recorder()
        self.transport = MemoryTransport(network, identity("node"), self.node, options)
        self._other = MemoryTransport(network, identity("bystander"), self.bystander, options)

    async def begin(self) -> None:
        address = await self.transport.listen("node")
        await self._other.dial(address)
        await until(lambda: self.node.opened)

    async def stranger(self) -> RawPeer:
        raw = RawPeer()
        connection = self.transport.accept_connection("192.0.2.7")
        assert connection is not None
        connect(raw, connection)
        await until(lambda: raw.wire)
        return raw

    async def hear(self, chunks: list[bytes]) -> RawPeer:
        """A stranger says something, hangs up, and is forgotten."""
        raw = await self.stranger()
        for chunk in chunks:
            raw.send(chunk)
            await asyncio.sleep(0)
        raw.close()
        await until(lambda: len(self.transport.connections()) == 1, "the stranger is forgotten")
        return raw

    async def end(self) -> None:
        """The bystander was not disturbed; then everything is closed."""
        assert not self.bystander.closed
        self.bystander.link.send(encode(Heartbeat(7, 7)))
        await until(lambda: self.node.payloads[-1:] == [encode(Heartbeat(7, 7))])
        await self._other.close()
        await self.transport.close()


def _decode(link: Link, payload: bytes) -> None:
    decode(payload)
