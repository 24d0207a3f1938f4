"""One end of a connection that follows no rules of the protocol: it sends any bytes at all."""

import asyncio

from adsum.transport.contract import NodeIdentity
from adsum.transport.frame_mac import FrameMac
from adsum.transport.framing import CLOSE, FRAME_LIMIT, FrameReader, decode_close
from adsum.transport.handshake import Handshake

from .waiting import until

Frame = tuple[int, bytes]


class RawPeer(asyncio.Protocol):
    """One end of a connection without any rules.

    Once it has greeted it tags its frames and checks those of the peer, as a member does.
    """

    def __init__(self) -> None:
        self.wire: asyncio.Transport | None = None
        self.reader = FrameReader(FRAME_LIMIT)
        self.mac: FrameMac | None = None
        self._handshake: Handshake | None = None
        self.chunks: list[bytes] = []
        self.taken: list[Frame] = []
        self.hung_up = False
        self.greeting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.wire = transport
        transport.write(self.greeting)

    def data_received(self, data: bytes) -> None:
        self.chunks.append(data)
        self.reader.feed(data)
        while (frame := self.reader.take()) is not None:
            self.taken.append(frame)
            if self._handshake is not None:
                self._shake(self._handshake)

    def connection_lost(self, exc: Exception | None) -> None:
        self.hung_up = True

    def send(self, data: bytes) -> None:
        assert self.wire is not None
        self.wire.write(tagged(data, self.mac))

    def close(self) -> None:
        assert self.wire is not None
        self.wire.close()

    async def greet(
        self, who: NodeIdentity, secret: bytes | None, *, protected: bool = False
    ) -> None:
        handshake = Handshake(who, dialling=True, secret=secret, protected=protected)
        self.send(handshake.start())
        self._handshake = handshake
        await until(lambda: handshake.peer is not None, "the end of the handshake")

    def _shake(self, handshake: Handshake) -> None:
        """Answer at once: what follows the proof in the same chunk may have tags."""
        self.send(handshake.receive(*self.taken.pop()))
        self.mac, self.reader.mac = handshake.outgoing, handshake.incoming
        if handshake.peer is not None:
            self._handshake = None

    @property
    def goodbyes(self) -> list[str]:
        return [decode_close(body) for kind, body in self.taken if kind == CLOSE]


def tagged(stream: bytes, mac: FrameMac | None) -> bytes:
    """A stream with a tag after each whole frame; what is no frame at its end stays as it is."""
    if mac is None:
        return stream
    parts = []
    while len(stream) >= 4 and (end := 4 + int.from_bytes(stream[:4], "big")) <= len(stream):
        parts += [stream[:end], mac.tag(stream[:end])]
        stream = stream[end:]
    return b"".join([*parts, stream])
