"""Reassembly of messages of bytes, which arrive as pieces: completely or not at all.

The pieces of one message are sent in order over one link, and between them no other published
message of their sender. So each link has at most one unfinished message. A piece is added to it
only if it has its number and continues it where it ends. Any other published message on the link
ends it, as does the end of the link: the sender gave it up, continues it elsewhere, or has died.
Messages that a peer publishes on topics of a carrier are a stream of their own beside its link,
with the same rules (`on_topic`).

The invariant is that a message is delivered completely or not at all, and at most once. It holds
because the pieces of a message are those of one number, without a gap from its first byte to its
last one, and because a sender never sends the last piece twice. It does not rely on the link: where
frames are lost, the message that lacks one is dropped, and pieces of different messages never mix.

The memory is bounded: a message counts with its full size from its first piece on, and a message
that does not fit into `MAX_UNFINISHED` is dropped. So is one whose next piece does not arrive: its
sender gave it up and publishes nothing more. A piece has a fixed size (see `codec`), so many
small ones cannot cost more.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from . import limits
from .messages import Piece, Publish
from .sizes import Size


@dataclass(slots=True)
class _Unfinished:
    """A message whose last pieces have not arrived.

    Attributes:
        head: The common fields of its pieces.
        size: Its bytes.
        received: Its bytes that have arrived, from the first one on.
        pieces: These bytes.
        continued_at: When the last of them arrived, in active time.
    """

    head: tuple[int, str, str, int]
    size: int
    received: int = 0
    pieces: list[bytes | memoryview] = field(default_factory=list)
    continued_at: float = 0.0


def on_topic(link: int) -> int:
    """The stream of messages on topics of the peer of a link, in place of the link: no link has it.

    The ids of links are positive.
    """
    return -link


class Reassembly:
    """The unfinished messages of all links."""

    def __init__(self) -> None:
        self._unfinished: dict[int, _Unfinished] = {}
        # The sum of their sizes.
        self._reserved = 0
        #: Messages that were dropped because a part of them did not arrive, or did not fit.
        self.incomplete = 0

    def receive(self, link: int, piece: Piece, now: float) -> Publish | None:
        """Add a piece that arrived over a link; returns the message if this completes it."""
        message = self._continued(link, piece) if piece.offset else self._begun(link, piece)
        if message is None:
            return None
        message.pieces.append(piece.data)
        message.received += len(piece.data)
        message.continued_at = now
        if message.received < message.size:
            return None
        self._forget(link)
        return Publish(piece.topic, piece.event, b"".join(message.pieces))

    def interrupt(self, link: int) -> None:
        """Drop the unfinished message of a link, if there is one: the rest will not arrive."""
        if link in self._unfinished:
            self._forget(link)
            self.incomplete += 1

    def expire(self, since: float) -> None:
        """Drop the messages of which no piece has arrived since an active time."""
        for link, message in list(self._unfinished.items()):
            if message.continued_at < since:
                self.interrupt(link)

    def close(self) -> None:
        """Drop all unfinished messages."""
        for link in list(self._unfinished):
            self.interrupt(link)

    def sizes(self, links: int) -> Iterator[Size]:
        """The unfinished messages, and their bytes."""
        yield Size("unfinished messages", len(self._unfinished), links)
        yield Size("bytes of unfinished messages", self._reserved, limits.MAX_UNFINISHED)

    def _begun(self, link: int, piece: Piece) -> _Unfinished | None:
        self.interrupt(link)
        if self._reserved + piece.size > limits.MAX_UNFINISHED:
            self.incomplete += 1
            return None
        self._reserved += piece.size
        message = self._unfinished[link] = _Unfinished(_head(piece), piece.size)
        return message

    def _continued(self, link: int, piece: Piece) -> _Unfinished | None:
        """The message that a piece continues; None if its earlier pieces are not all here."""
        message = self._unfinished.get(link)
        if message is None:
            return None
        if message.head != _head(piece) or message.received != piece.offset:
            self.interrupt(link)
            return None
        return message

    def _forget(self, link: int) -> None:
        self._reserved -= self._unfinished.pop(link).size


def _head(piece: Piece) -> tuple[int, str, str, int]:
    """The fields that all pieces of one message have in common."""
    return piece.number, piece.topic, piece.event, piece.size
