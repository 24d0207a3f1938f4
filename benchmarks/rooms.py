"""The room of adsum that is measured: whoever joins is tracked, and may change its meta."""

from typing import Any

import adsum
from adsum.channels import Channel, Limits, Socket, on

#: Members of a benchmark change faster than people do.
UNLIMITED = 1_000_000


class Room(Channel, topic="room:{room}"):
    async def join(self, payload: dict[str, Any]) -> None:
        self.me = self.track(payload["key"], payload["meta"])

    @on("change")
    async def change(self, payload: dict[str, Any]) -> None:
        self.me.update(payload)


def make_socket(presence: adsum.Presence) -> Socket:
    """The application that is mounted."""
    return Socket(presence, [Room], limits=Limits(updates=UNLIMITED))
