"""A WebSocket protocol for uvicorn with a direct path in and out, for adsum and others.

Choose it with ``uvicorn app:app --ws adsum.channels.uvicorn:WebSocketProtocol``. It is uvicorn's
own protocol over websockets' parser, with two additions:

- A plain frame is parsed here instead of in the generators of websockets. A frame is plain if it
  is a complete, masked text or binary message in one frame, not compressed and within the limit.
- The extension ``adsum.direct`` in the scope lets an application receive messages by calls and
  write them to the transport, without a queue, a task or an `await` between.

Invariant: the parser of websockets (`conn`) sees every byte of every frame that could change its
state, and never a part of a frame that was consumed here. So it is at a frame boundary whenever a
frame is consumed here, and neither fragments, nor pings, closes and errors know of the short cut.
A whole frame is given to it in one call, as if each had arrived alone: a message before an invalid
frame is delivered wherever the stream is cut.

A client may send any number of small frames in one read, such as pings. So each frame that no
receiver pays for is charged to the budget of the turn (see `fairshare`), and the others are held
for later turns; nothing more is read meanwhile.

In the log level debug, all frames go through the parser, which logs them.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections import deque
from collections.abc import Coroutine
from math import inf
from typing import Any, Final

from .flow.fairshare import WORK, FairShare
from .flow.flag import Flag
from .wire.directpath import EXTENSION, DirectPath, Receiver
from .wire.frames import Wire
from .wire.prepared import Prepared
from .wire.wsframes import BINARY, TEXT, compressed_message, plain_message

__all__ = ["WebSocketProtocol"]

#: The oldest versions with which this protocol works: major and minor numbers.
UVICORN: Final = (0, 53)
WEBSOCKETS: Final = (16, 0)


def check_version(library: str, found: str, oldest: tuple[int, int]) -> None:
    """Check the version of an installed library.

    Raises:
        ImportError: It is too old; names the oldest version.
    """
    numbers = re.match(r"(\d+)\.(\d+)", found)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < oldest:
        needed = f"{library} {oldest[0]}.{oldest[1]} or newer"
        raise ImportError(f"adsum.channels.uvicorn needs {needed}, found {found}")


try:
    from uvicorn import __version__ as _uvicorn_version
    from websockets.version import version as _websockets_version
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "adsum.channels.uvicorn needs uvicorn and websockets: pip install 'adsum[uvicorn]'",
        name=error.name,
    ) from error
check_version("uvicorn", _uvicorn_version, UVICORN)
check_version("websockets", _websockets_version, WEBSOCKETS)

# After the checks: older versions lack some of these.
from uvicorn.protocols.websockets.websockets_sansio_impl import (  # noqa: E402
    WebSocketsSansIOProtocol,
)
from websockets.extensions.permessage_deflate import PerMessageDeflate  # noqa: E402
from websockets.server import ServerProtocol  # noqa: E402

try:
    from websockets.speedups import apply_mask
except ImportError:  # built without its extension in C
    from websockets.utils import apply_mask

_REQUEST_END = b"\r\n\r\n"
#: Opcodes of RFC 6455; a frame with another one is invalid whatever follows.
_OPCODES = frozenset({0, 1, 2, 8, 9, 10})
_INTERNAL_ERROR, _NOT_UTF8 = 1011, 1007
#: Bytes that the parser is given at once where the boundaries of frames are not known.
_BITE = 256
_NO_STATUS, _ABNORMAL = 1005, 1006


class DirectTransport:
    """A direct connection, see `DirectPath`, and the queue of uvicorn's events for its receiver.

    Args:
        protocol: The connection, whose handshake is complete.
        receiver: The application's side.
    """

    __slots__ = (
        "_bits",
        "_early",
        "_ended",
        "_is_closing",
        "_protocol",
        "_receiver",
        "_write",
        "has_room",
    )

    def __init__(self, protocol: WebSocketProtocol, receiver: Receiver) -> None:
        self._protocol = protocol
        self._receiver = receiver
        self._write = protocol.transport.write
        self._is_closing = protocol.transport.is_closing
        self._bits = _use_no_compressor(protocol.conn)
        self._ended = False
        # Events that uvicorn had queued before; None once the receiver has got them.
        self._early: deque[Any] | None = deque()
        while not protocol.queue.empty():
            self._early.append(protocol.queue.get_nowait())
        #: See `DirectPath`.
        self.has_room = (
            protocol.writable.is_set()
            and not protocol.close_sent
            and not protocol.transport.is_closing()
        )

    # For the application.

    def write(self, frame: Wire | Prepared) -> bool:
        """See `DirectPath`."""
        if not self.has_room or self._protocol.close_sent or self._is_closing():
            return False
        bits = self._bits
        if isinstance(frame, Prepared):
            message = frame.message or frame.plain() if bits is None else frame.compressed(bits)
        elif bits is None:
            message = plain_message(frame)
        else:
            message = compressed_message(frame, bits)
        self._write(message)
        return True

    def pause_reading(self) -> None:
        """See `DirectPath`."""
        protocol = self._protocol
        if not protocol.read_paused:
            protocol.read_paused = True
            protocol.transport.pause_reading()

    def resume_reading(self) -> None:
        """See `DirectPath`."""
        protocol = self._protocol
        if protocol.read_paused:
            protocol.resume()
            self._deliver_early()
            protocol.read_held()

    def close(self, code: int, reason: str) -> None:
        """See `DirectPath`; a client that has not answered in ``close_timeout`` is cut off."""
        self._protocol.send_close(code, reason)
        self._end(code, reason)

    def abort(self) -> None:
        """See `DirectPath`."""
        self._protocol.transport.abort()
        self._end(_ABNORMAL, "")

    # For the protocol, to which this is the queue of events for the application.

    def put_nowait(self, event: Any) -> None:
        """Call the receiver for an ASGI event."""
        message = event["type"] == "websocket.receive"
        if not message:
            self.has_room = False
        if self._early is not None:
            self._early.append(event)
        elif message:
            text = event.get("text")
            self.deliver(event["bytes"] if text is None else text)
        else:
            self._end(event.get("code", _NO_STATUS), event.get("reason") or "")

    async def get(self) -> Any:
        """Refuse to receive for an application that has opened the connection directly."""
        raise RuntimeError("this connection was opened with adsum.direct, and calls its receiver")

    def deliver(self, data: Wire) -> None:
        """Pass a message to the receiver."""
        if not self._ended:
            try:
                self._receiver.received(data)
            except Exception:
                self._crash()

    def resume_writing(self) -> None:
        """Note that the transport's buffer has room again."""
        if not self._ended and not self._protocol.transport.is_closing():
            self.has_room = True
            try:
                self._receiver.writable()
            except Exception:
                self._crash()

    def _deliver_early(self) -> None:
        while self._early and not self._protocol.read_paused:
            event = self._early.popleft()
            early, self._early = self._early, None
            self.put_nowait(event)
            self._early = early
        if not self._early:
            self._early = None

    def _end(self, code: int, reason: str) -> None:
        self.has_room = False
        if not self._ended:
            self._ended = True
            self._protocol.abort_later()
            try:
                self._receiver.ended(code, reason)
            except Exception:
                self._crash()

    def _crash(self) -> None:
        self._protocol.logger.exception("The receiver of a direct connection crashed.")
        self.close(_INTERNAL_ERROR, "")


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol over websockets, with short cuts for plain frames, both ways."""

    # The second half are attributes of uvicorn's class. With these slots the others are fewer than
    # 31, so that CPython gives an object no dict of its own, which would take 1.6 kB.
    __slots__ = (
        "_abort_timer",
        "_due",
        "_held",
        "_limit",
        "_pong",
        "_rest",
        "_share",
        "_tracked",
        "direct",
        *("close_timeout", "close_timer", "curr_msg_data_type", "frames", "last_ping_rtt"),
        *("pending_ping_payload", "ping_interval", "ping_sent_at", "ping_timeout", "ping_timer"),
        *("pong_timer", "writable"),
    )

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.writable = Flag()  # type: ignore[assignment]  # as the inherited methods use it
        #: The direct connection, once the application has opened one.
        self.direct: DirectTransport | None = None
        # Bytes of the longest message.
        limit = self.conn.max_message_size
        self._limit: float = inf if limit is None else limit
        # Bytes that have arrived but were neither consumed nor given to the parser: the beginning
        # of a header, or all that follows while a direct connection does not read.
        self._held = b""
        # Bytes of the current frame that the parser has still to be given.
        self._rest = 0
        # Whether the boundaries of frames are known; False for good once a close was sent.
        self._tracked = False
        # The client's share of each turn, for frames that no receiver pays for; whether its turn
        # to have held bytes read is due.
        self._share = FairShare()
        self._due = False
        # The answer to the last ping, while there is no room to write it.
        self._pong = b""
        # Runs once the connection should end; see `abort_later`.
        self._abort_timer: asyncio.TimerHandle | None = None

    def run_asgi(self) -> Coroutine[Any, Any, None]:
        """Offer the extension, then run the application."""
        extensions: dict[str, Any] = self.scope["extensions"]
        extensions[EXTENSION] = {"open": self.open_direct}
        return super().run_asgi()

    def open_direct(self, receiver: Receiver) -> DirectPath:
        """Hand the connection to a receiver; see ``docs/direct-connections.md``.

        Nothing is delivered before the first `DirectTransport.resume_reading`.

        Raises:
            RuntimeError: The handshake is not complete, or the connection was opened before.
        """
        if not self.handshake_complete or self.direct is not None:
            raise RuntimeError("a direct connection is opened once, after websocket.accept")
        self.direct = DirectTransport(self, receiver)
        # The parser keeps both for good. The application has the headers in its scope.
        self.request.headers.clear()
        self.response.headers.clear()
        self.queue = self.direct  # type: ignore[assignment]  # as the inherited methods use it
        self.direct.pause_reading()
        return self.direct

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`; two small frames in a row are sent without a delay.

        asyncio sets this option only for sockets that were made with the number of the protocol,
        and those of ``uvicorn --workers`` were not.
        """
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    # Incoming.

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self.handshake_initiated:
            self._read(data)
            return
        super().data_received(data)
        # Bytes behind the request would be a frame that the parser has begun to read.
        ends_here = data.find(_REQUEST_END) + len(_REQUEST_END) == len(data)
        self._tracked = self.handshake_initiated and ends_here and not self.conn.debug

    def _read(self, data: bytes) -> None:  # noqa: C901  # for each frame: a call is slow
        """Consume plain frames, and give the others to the parser, one at a time."""
        if self._held:
            data, self._held = self._held + data, b""
        if self._due:
            self._held = data
            return
        at, size, conn = 0, len(data), self.conn
        while at < size:
            if self.direct is not None and self.read_paused and not self.close_sent:
                self._held = data[at:]
                return
            if (
                self._tracked
                and not self._rest
                and size - at > 5
                and self.handshake_complete
                and not self.close_sent
            ):
                first, second = data[at], data[at + 1]
                start, length = at + 6, second & 0x7F
                if length > 125:
                    start += 2 if length == 126 else 8
                    length = int.from_bytes(data[at + 2 : start - 4], "big")
                end = start + length
                if (
                    (first == TEXT or first == BINARY)  # noqa: SIM109  # for each frame: a set is slow
                    and second > 0x7F
                    and end <= size
                    and length <= self._limit
                    and conn.current_size is None
                    and (self.direct is not None or self._share.spend(WORK))
                ):
                    self._receive(
                        first == TEXT, apply_mask(data[start:end], data[start - 4 : start])
                    )
                    at = end
                    continue
            if self.transport.is_closing():
                return  # an invalid message came before, in the same data
            if not self._share.spend(WORK):
                self._held = data[at:]
                self._due = True
                self.transport.pause_reading()
                self._share.call(WORK, self._read_on)
                return
            end = self._end_of_other(data, at)
            if end == at:
                self._held = data[at:]
                return
            super().data_received(data[at:end])
            if self.transport.is_closing():
                return  # that was a close or an invalid frame
            at = end

    def _end_of_other(self, data: bytes, at: int) -> int:
        """The end of the bytes to give to the parser now; `at` itself to wait for more.

        A header is given once its length is known, or it is invalid without one: before, the parser
        would only wait for more.
        """
        size = len(data)
        if not self._tracked or self.close_sent:
            self._tracked = False
            return min(at + _BITE, size)
        if not self._rest:
            if size - at < 2:
                return at
            if data[at + 1] < 0x80 or data[at] & 0x0F not in _OPCODES:
                self._tracked = False
                return min(at + _BITE, size)
            length = data[at + 1] & 0x7F
            extra = 0 if length < 126 else 2 if length == 126 else 8
            if size - at < 2 + extra:
                return at
            if extra:
                length = int.from_bytes(data[at + 2 : at + 2 + extra], "big")
            self._rest = 6 + extra + length
        end = min(at + self._rest, size)
        self._rest -= end - at
        return end

    def _receive(self, text: bool, data: bytes) -> None:
        """Receive a message that came in a plain frame."""
        direct = self.direct
        if direct is not None:
            try:
                message = data.decode() if text else data
            except UnicodeDecodeError:
                self.conn.send_close(_NOT_UTF8)
                self.handle_parser_exception()
            else:
                direct.deliver(message)
            return
        self.curr_msg_data_type = "text" if text else "bytes"
        self.frames = [data]
        super().send_receive_event_to_app()

    def send_receive_event_to_app(self) -> None:
        """Pass on a message that the parser has read."""
        if self.direct is None or self.close_sent:
            super().send_receive_event_to_app()
        else:
            data, self.frames = b"".join(self.frames), []
            self._receive(self.curr_msg_data_type == "text", data)

    def read_held(self) -> None:
        """Read the bytes that arrived while a direct connection did not read."""
        if self._held:
            self._read(b"")

    def _read_on(self) -> None:
        """Read held bytes in the client's turn, and then from the transport again."""
        self._due = False
        if not self.transport.is_closing():
            self.read_held()
            if not self.read_paused and not self._due:
                self.transport.resume_reading()

    def resume(self) -> None:
        """Read from the transport, unless the client's turn to have held bytes read is due."""
        self.read_paused = False
        if not self._due:
            self.transport.resume_reading()

    async def receive(self) -> Any:
        """See ASGI."""
        event = await super().receive()
        if self._due:
            self.transport.pause_reading()  # which that has ended
        return event

    def handle_parser_exception(self) -> None:
        """End after an invalid frame."""
        if self.handshake_complete:
            super().handle_parser_exception()
        else:
            self.transport.abort()  # it cannot be sent a close yet

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        super().connection_lost(exc)
        self._held = b""
        if self._abort_timer is not None:
            self._abort_timer.cancel()

    # Outgoing.

    def handle_ping(self) -> None:
        """Answer a ping, once there is room: then only the last one, as RFC 6455 permits."""
        pong = b"".join(self.conn.data_to_send())
        if not self.writable.is_set():
            self._pong = pong or self._pong
        elif not self.transport.is_closing():
            self.transport.write(pong)

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        super().pause_writing()
        if self.direct is not None:
            self.direct.has_room = False

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        super().resume_writing()
        pong, self._pong = self._pong, b""
        if pong and not self.close_sent and not self.transport.is_closing():
            self.transport.write(pong)
        if self.direct is not None:
            self.direct.resume_writing()

    def send_close(self, code: int, reason: str) -> None:
        """Send a close, and read on until the client answers it; see `DirectTransport.close`."""
        if self.close_sent or self.transport.is_closing():
            return
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        # Unlike a close, an abort also ends a client that does not read what was written before.
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.abort)
        if self.read_paused:
            self.resume()
        self.read_held()

    def keepalive_timeout(self) -> None:
        """Close the connection of a client that did not answer a ping."""
        super().keepalive_timeout()
        if self.direct is not None:
            self.abort_later()

    def abort_later(self) -> None:
        """Free the socket of a client that does not read, after uvicorn's ``close_timeout``.

        A close of the transport waits until the client has read all that was written before.
        """
        if self._abort_timer is None:
            self._abort_timer = self.loop.call_later(self.close_timeout, self.transport.abort)


def _use_no_compressor(conn: ServerProtocol) -> int | None:
    """Compress each message independently of others; returns the window bits, None for plain.

    The parser's compressor does not know the messages of a direct connection. So it is dropped, and
    the parser would make a new one for each message.
    """
    for extension in conn.extensions:
        if isinstance(extension, PerMessageDeflate):
            if not extension.local_no_context_takeover:
                extension.local_no_context_takeover = True
                del extension.encoder
            return extension.local_max_window_bits
    return None
