"""`Session`: one client that polls, on the node of its connection.

Invariants:
- Each frame reaches the client once. A response is kept until the client polls with its number;
  until then, a poll with the previous number gets the same response again. A holder of an older
  token learns nothing from it, and does not disturb a waiting poll.
- One batch of frames from the client is handled at a time.
"""

import asyncio
import base64
import binascii
import re
from collections.abc import Callable, Iterator

from adsum.activetime import ActiveTimer, active_timeout
from adsum.channels.connection import Connection
from adsum.channels.flow.fairshare import WORK
from adsum.channels.wire.frames import Wire
from adsum.channels.wire.prepared import Prepared, wire_of
from adsum.tasks import start_task

from .tokens import new_session

#: Seconds that a poll waits for frames.
WINDOW = 10.0
#: Seconds that a poll waits once the node is about to stop, because a server waits for its requests
#: before it ends the lifespan. It is longer than uvicorn takes to stop accepting connections, so
#: that the client asks another worker next.
STOP_WINDOW = 0.5
#: Seconds of active time that a session lives after an answer: a client polls again at once, and
#: the longest answer takes no longer. A client whose next poll is lost, because its server died
#: just then, begins a new session and names no old one, so it is listed twice for this long.
LIFETIME = 15.0
#: Seconds of active time that a session lives after an aborted poll: phoenix.js then begins a new
#: session, and a closed tab sends nothing.
LIFETIME_IF_BROKEN = 3.0
#: Seconds of active time within which a request that does not wait is answered.
PATIENCE = 5.0
#: A line that is not blank, from its first non-space character on.
_LINE = re.compile(r"\S[^\n]*")
#: Frames in one response; characters at which no further frame is added to it.
_MAX_FRAMES, _MAX_ANSWER = 100, 256 * 1024
#: Characters of JSON text that the presences of a topic may have for a client that polls. Longer
#: ones cannot be forwarded between nodes, so they are refused on every node.
MAX_STATE = 20 * 1024 * 1024


class Session:
    """The session of one client that polls."""

    def __init__(self, connection: Connection, ended: Callable[["Session"], None]) -> None:
        self.id = new_session()
        self.connection = connection
        # Number of the last response; its frames, None once the client has polled with it.
        self._number = 0
        self._frames: list[str] | None = None
        self._poll: asyncio.Future[None] | None = None
        self._ended = ended
        self._finishing: asyncio.Task[None] | None = None
        self._expiry = self._expire_later(LIFETIME)
        # Whether frames of the client are being received.
        self._sending = False
        # Whether the waiting or last poll was aborted.
        self._broken = False
        connection.longest_state = MAX_STATE
        connection.attach(self)

    async def poll(self, number: int) -> tuple[int, int, list[str]]:
        """Wait for frames; returns the status, the number of the response, and the frames."""
        if not self._is_present(number):
            return 410, 0, []
        self.filled()  # of two waiting polls the older one is answered, without frames
        self.connection.note_activity()
        if number != self._number:
            return 200, self._number, self._frames or []
        self._frames = None
        self._expiry.cancel()
        self._broken = False
        if not self._has_more():
            waiting = self._poll = asyncio.get_running_loop().create_future()
            try:
                await asyncio.wait([waiting], timeout=STOP_WINDOW if self._is_stopping else WINDOW)
            except asyncio.CancelledError:
                if self._poll is waiting:
                    self._broken = True
                    self._restart_expiry()
                raise
            if self._poll is not waiting:
                return 204, number, []  # a newer poll waits and gets the frames
        self._restart_expiry()
        return self._answer()

    def stopping(self) -> None:
        """Answer the waiting poll soon: the node is about to stop."""
        if self._poll is not None and not self._poll.done():
            self.connection.loop.call_later(STOP_WINDOW, self.filled)

    def break_off(self, number: int) -> None:
        """Abort the waiting or last poll, if it had this number: its client cannot be answered."""
        if not self._is_present(number):
            return
        self._broken = True
        if self._poll is not None and not self._poll.done():
            self.filled()
        else:
            self._restart_expiry()

    async def send(self, body: str, *, lines: bool) -> int:
        """Handle the frames that the client sent, up to the first invalid one; returns a status.

        A client sends one request at a time. If its frames cannot be handled within `PATIENCE`,
        the connection is closed: the client could not know how many of them were handled.
        """
        if self._sending:
            return 409
        self._sending = True
        try:
            async with active_timeout(PATIENCE):
                for frame in _frames(body, lines=lines):
                    await self.connection.wait_room()
                    await self.connection.share.turn(WORK + len(frame))
                    if self.connection.closing is not None:
                        break
                    self.connection.receive(_wire(frame))
        except TimeoutError:
            self.connection.close(1013, "too many unhandled events")
        finally:
            self._sending = False
        return 200 if self.connection.closing is None else 410

    def write(self, frame: Wire | Prepared) -> bool:
        """See `Carrier`: frames wait for the next poll."""
        return False

    def give_up(self) -> None:
        """See `Carrier`."""
        self.end()

    def end(self) -> None:
        """End the session and its connection. Idempotent."""
        if self._finishing is None:
            self._expiry.cancel()
            self._ended(self)
            linger = self.connection.shared.registry.lingers()
            self._finishing = start_task(self.connection.finish(linger=linger))
            self.filled()

    def _answer(self) -> tuple[int, int, list[str]]:
        frames, size = list[str](), 0
        while len(frames) < _MAX_FRAMES and size < _MAX_ANSWER:
            entry = self.connection.outbox.take()
            if entry is None:
                break
            frame = wire_of(entry)
            if isinstance(frame, str):
                frames.append(frame)
                size += len(frame)
        if frames:
            self._number += 1
            self._frames = frames
            return 200, self._number, frames
        if self.connection.closing is not None:
            self.end()
            return 410, 0, []
        return 204, self._number, []

    def _is_present(self, number: int) -> bool:
        """Whether a token of this number may be the client's newest one."""
        return number == self._number or (number == self._number - 1 and self._frames is not None)

    @property
    def _is_stopping(self) -> bool:
        return self.connection.shared.presence.node.stopping

    def _has_more(self) -> bool:
        return bool(self.connection.outbox) or self.connection.closing is not None

    def filled(self) -> None:
        """See `Carrier`: answer the waiting poll."""
        if self._poll is not None and not self._poll.done():
            self._poll.set_result(None)

    def _restart_expiry(self) -> None:
        self._expiry.cancel()
        self._expiry = self._expire_later(LIFETIME_IF_BROKEN if self._broken else LIFETIME)

    def _expire_later(self, lifetime: float) -> ActiveTimer:
        return ActiveTimer(lifetime, self.end)


def _frames(body: str, *, lines: bool) -> Iterator[str]:
    """Iterate over the frames in a body; lazily, since one body may hold half a million."""
    if not lines:
        yield body
        return
    for found in _LINE.finditer(body):
        yield found[0].rstrip("\r")


def _wire(line: str) -> Wire:
    """Undo the base64 that phoenix.js applies to binary frames."""
    if line[:1] in ("[", "{"):
        return line
    try:
        return base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        return line  # not a frame, and refused as such when it is decoded
