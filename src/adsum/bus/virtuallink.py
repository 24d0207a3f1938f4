"""`VirtualLink`: one link over the bus, and `VirtualGreeting`: a handshake under way."""

from dataclasses import dataclass, field

from adsum.errors import ProtocolError
from adsum.transport.contract import NodeIdentity
from adsum.transport.framing import GREETING_LIMIT, FrameReader
from adsum.transport.handshake import Handshake

from .buswindows import ReceiveWindow, SendWindow
from .limits import FIRST_AFTER, RESEND_AFTER, RESEND_PATIENCE, UNHEARD_PATIENCE


@dataclass(slots=True, eq=False)
class VirtualGreeting:
    """A handshake under way.

    Attributes:
        key: The key of the link that it opens.
        life: The life of the other end.
        handshake: This end of it.
        began_at: When it began here, in monotonic seconds.
        until: When it fails, in monotonic seconds.
        dialled: The address that this end dialled; None if the other end did.
        sent: The last frames of this end; empty before the first ones.
        repeated_at: When they were last sent again, in monotonic seconds.
    """

    key: bytes
    life: bytes
    handshake: Handshake
    began_at: float
    until: float
    dialled: str | None
    sent: bytes = b""
    repeated_at: float = float("-inf")
    # The frames that were received last.
    _last: bytes = b""

    def receive(self, frames: bytes) -> bytes:
        """Receive frames of the other end; returns the frames to send in answer.

        Frames that arrive twice are ignored.

        Raises:
            HandshakeError: The nodes cannot form a link.
            ProtocolError: A frame is malformed or out of place.
        """
        if frames == self._last:
            return b""
        self._last = frames
        reader = FrameReader(GREETING_LIMIT)
        reader.feed(frames)
        answer = b""
        while (frame := reader.take()) is not None:
            answer += self.handshake.receive(*frame)
        if len(reader):
            raise ProtocolError("a part of a frame in a handshake")
        return answer


@dataclass(slots=True, eq=False)
class VirtualLink:
    """One link over the bus.

    Attributes:
        id: Its number in this node.
        key: Random bytes that identify it at both ends, chosen by the end that dialled.
        life: The life of the peer.
        peer: The identity of the peer.
        sending: The direction to the peer.
        receiving: The direction from the peer.
        writable: Whether there is room to send.
        unreported: Bytes received since the last report to the peer.
        missing_since: When a gap was noticed, and when to ask for its messages again.
        unheard: Seconds of connection to the bus since the peer was last heard, up to the last loss
            of the bus.
        greeted_at: When the return of the peer was last answered with a report.
        held: Whether the silence of the peer means nothing.
        question: Random bytes, drawn when it was last doubted whether the peer has this link still.
        confirmed: Whether the peer is known to have it still, as it has answered the question. If
            it has not, its casts are not for this link, though nothing in them says so, and may
            come over a newer link, too.
    """

    id: int
    key: bytes
    life: bytes
    peer: NodeIdentity
    sending: SendWindow
    question: bytes
    receiving: ReceiveWindow = field(default_factory=ReceiveWindow)
    writable: bool = True
    unreported: int = 0
    held: bool = False
    confirmed: bool = True
    missing_since: float | None = None
    unheard: float = 0.0
    greeted_at: float = float("-inf")
    ask_at: float = float("inf")
    _pause: float = RESEND_AFTER

    def await_first(self, now: float, took: float) -> None:
        """Expect the first message of the peer, which follows its handshake.

        Args:
            now: Monotonic seconds.
            took: Seconds that the handshake took. The first message of a busy peer may take as
                long, and asking for it would make the peer busier.
        """
        self._pause = min(max(FIRST_AFTER, 2 * took), RESEND_PATIENCE / 2)
        self.missing_since, self.ask_at = now, now + self._pause

    def doubt(self, question: bytes) -> None:
        """Note that the peer may have given the link up, until it has answered a new question.

        The next `note_gap` asks, also if the first message of a busy peer is awaited for long.
        """
        self.question, self.confirmed = question, False
        self.ask_at, self._pause = float("-inf"), RESEND_AFTER

    def lose_bus(self, connected_for: float, question: bytes) -> bool:
        """Note the loss of the bus; returns whether the link is to be closed.

        Args:
            connected_for: Seconds of the connection that has ended.
            question: For the next one.
        """
        self.unheard = 0.0 if self.confirmed else self.unheard + connected_for
        self.missing_since = None
        self.doubt(question)
        return self.unheard >= UNHEARD_PATIENCE

    def note_gap(self, now: float) -> bool:
        """Note whether a message or the confirmation is missing; returns whether to ask now."""
        if self.confirmed and not self.receiving.incomplete:
            self.missing_since, self.ask_at, self._pause = None, float("inf"), RESEND_AFTER
            return False
        if self.missing_since is None:
            self.missing_since, self.ask_at = now, now
        if now < self.ask_at:
            return False
        self.ask_at, self._pause = now + self._pause, 2 * self._pause
        return True

    def hopeless(self, now: float) -> bool:
        """Whether a message is missing for so long that the link is to be closed."""
        return self.missing_since is not None and now - self.missing_since > RESEND_PATIENCE
