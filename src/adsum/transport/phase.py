"""The contract between a connection and its phases: greeting, then open link."""

from typing import Protocol

from adsum.errors import ProtocolError


class Phase(Protocol):
    """The phase of a connection: it receives the frames, and handles the end."""

    #: The name of the phase, for the log.
    name: str
    #: Whether frames that arrived before the connection was lost are delivered before its end.
    delivers_all: bool

    def begin(self) -> None:
        """Start: the connection is made, or the phase before has handed it over."""

    def receive(self, kind: int, body: bytes) -> int:
        """Handle a frame, except a goodbye; returns the bytes of its payload.

        Raises:
            ProtocolError: The frame breaks the protocol.
        """

    def has_room(self) -> None:
        """All frames are written, and most of the write buffer has drained."""

    def shut(self, reason: str) -> None:
        """Close in order, if anything can be sent in this phase; abort otherwise."""

    # Each of these ends the phase.

    def peer_left(self, reason: str) -> None:
        """A goodbye has arrived."""

    def peer_broke_protocol(self, error: ProtocolError) -> None:
        """A frame could not be read, or `receive` refused it."""

    def crashed(self) -> None:
        """`receive` raised an error that is not the peer's fault; it is logged."""

    def lost(self, reason: str, error: Exception | None) -> None:
        """The connection is lost."""

    def aborted(self, reason: str, *, logged: bool) -> None:
        """This end drops the connection; `logged` if the caller has logged why."""
