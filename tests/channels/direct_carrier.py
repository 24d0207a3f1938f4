"""A carrier that writes each frame at once, as one could that has the transport of its client."""

import json
from typing import Any

from adsum.channels import Client, Socket
from adsum.channels.connection import Connection
from adsum.channels.wire.frames import V2, Wire
from adsum.channels.wire.prepared import Prepared


class Direct:
    """A client of a socket over such a carrier."""

    def __init__(self, socket: Socket) -> None:
        self.frames: list[Any] = []
        self.given_up = False
        self._taking = False
        self.connection = Connection(socket._shared, Client(), V2)
        self.connection.attach(self)

    def filled(self) -> None:
        if self._taking:
            return  # making a frame has queued the next one, which the loop below takes
        self._taking = True
        while (frame := self.connection.outbox.take()) is not None:
            self.frames.append(json.loads(frame))
        self._taking = False

    def write(self, frame: Wire | Prepared) -> bool:
        if self._taking:
            return False
        self.frames.append(json.loads(frame.wire if isinstance(frame, Prepared) else frame))
        return True

    def give_up(self) -> None:
        self.given_up = True

    def send(self, *frame: Any) -> None:
        self.connection.receive(json.dumps(frame))

    def events(self) -> list[str]:
        """The events of the frames written so far."""
        return [frame[3] for frame in self.frames]
