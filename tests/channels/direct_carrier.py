"""A carrier that writes each frame at once, as one could that has the transport of its client."""

import json
from typing import Any

from adsum.channels import Client, Socket
from adsum.channels.connection import Connection
from adsum.channels.wire.frames import V2, Serializer, Wire
from adsum.channels.wire.prepared import Prepared, PreparedSeries, wire_of


class Direct:
    """A client of a socket over such a carrier."""

    def __init__(self, socket: Socket, serializer: Serializer = V2) -> None:
        #: The frames written so far: parsed JSON, or bytes; and as the carrier was passed them.
        self.frames: list[Any] = []
        self.written: list[Wire | Prepared] = []
        self.given_up = False
        #: Whether the transport has room. Without it, frames are queued.
        self.room = True
        self._taking = False
        self.connection = Connection(socket._shared, Client(), serializer)
        self.connection.attach(self)

    def filled(self) -> None:
        if self._taking:
            return  # making a frame has queued the next one, which the loop below takes
        self._taking = True
        while self.room and (frame := self.connection.outbox.take()) is not None:
            self._append(frame)
        self._taking = False

    def write(self, frame: Wire | Prepared) -> bool:
        if self.room:
            self._append(frame)
        return self.room

    def give_up(self) -> None:
        self.given_up = True

    def resume(self) -> None:
        """Have room again."""
        self.room = True
        self.filled()

    def send(self, *frame: Any) -> None:
        self.connection.receive(json.dumps(frame))

    def events(self) -> list[str]:
        """The events of the frames written so far."""
        return [frame[3] for frame in self.frames]

    def _append(self, frame: Wire | Prepared) -> None:
        self.written.append(frame)
        for each in frame.frames if isinstance(frame, PreparedSeries) else [frame]:
            wire = wire_of(each)
            self.frames.append(wire if isinstance(wire, bytes) else json.loads(wire))
