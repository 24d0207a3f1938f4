"""A raw socket to a real node: it says what it is told to, and follows no rules."""

import socket
import time
from types import TracebackType
from typing import Self

from adsum.replication.codec import encode
from adsum.replication.messages import ProtocolMessage
from adsum.transport.address import UnixAddress, parse
from adsum.transport.contract import NodeIdentity
from adsum.transport.frame_mac import FrameMac
from adsum.transport.framing import (
    CLOSE,
    FRAME_LIMIT,
    FrameReader,
    decode_close,
    encode_payload,
)
from adsum.transport.handshake import Handshake
from tests.support.raw_peer import tagged
from tests.support.waiting import DEADLINE


class Intruder:
    """One connection to a node; leaving the block closes it.

    Once it has greeted, its frames have tags where those of a member would.
    """

    def __init__(self, address: str) -> None:
        where = parse(address)
        if isinstance(where, UnixAddress):
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            target: str | tuple[str, int] = where.path
        else:
            self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            target = (where.host, where.port)
        self.sock.settimeout(DEADLINE)
        self.said: list[bytes] = []
        self._reader = FrameReader(FRAME_LIMIT)
        self._mac: FrameMac | None = None
        try:
            self.sock.connect(target)
        except BaseException:
            self.sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        data = tagged(data, self._mac)
        self.said.append(data)
        self.sock.sendall(data)

    def say(self, *messages: ProtocolMessage) -> None:
        self.send(b"".join(encode_payload(encode(message)) for message in messages))

    def take(self) -> tuple[int, bytes] | None:
        """The next frame, or None when the node hangs up."""
        while (frame := self._reader.take()) is None:
            try:
                chunk = self.sock.recv(65536)
            except ConnectionError:
                chunk = b""
            if not chunk:
                return None
            self._reader.feed(chunk)
        return frame

    def greet(self, who: NodeIdentity, secret: bytes | None) -> NodeIdentity:
        """Become a member; returns who the node is."""
        handshake = Handshake(who, dialling=True, secret=secret)
        self.send(handshake.start())
        while handshake.peer is None:
            frame = self.take()
            assert frame is not None, "the node hung up during the handshake"
            self.send(handshake.receive(*frame))
            self._mac, self._reader.mac = handshake.outgoing, handshake.incoming
        return handshake.peer

    def dismissed(self) -> str:
        """Wait until the node says goodbye or hangs up; returns the reason that it gave."""
        deadline = time.monotonic() + DEADLINE
        while (frame := self.take()) is not None:
            assert time.monotonic() < deadline, "the node does not hang up"
            if frame[0] == CLOSE:
                return decode_close(frame[1])
        return ""
