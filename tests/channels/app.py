"""An application without a server, for tests that connect to its socket directly."""

from typing import Any

import adsum
from adsum.channels import Channel, ChannelPresence, Socket, on
from adsum.channels.connection import Connection


class App:
    """A node, and a socket with some channels."""

    def __init__(self, *channels: type[Channel], **settings: Any) -> None:
        self.node = adsum.Node(siblings=False)
        self.presence = adsum.Presence(self.node, fetch=settings.pop("fetch", None))
        self.socket = Socket(self.presence, channels, **settings)


def connections(socket: Socket) -> list[Connection]:
    """The connections of a socket."""
    registered = socket._shared.registry.connections
    return [connection for connection in registered if isinstance(connection, Connection)]


class Tracking(Channel, topic="room"):
    """Tracks and updates as it is told."""

    async def join(self, payload: Any) -> None:
        self.handles: dict[str, ChannelPresence] = {}

    @on("track")
    async def on_track(self, payload: Any) -> dict[str, Any]:
        handle = self.handles[payload["key"]] = self.track(payload["key"], payload.get("meta"))
        return {"active": handle.active}

    @on("update")
    async def on_update(self, payload: Any) -> dict[str, Any]:
        self.handles[payload["key"]].update(lambda meta: {**meta, **payload["meta"]})
        return {}

    @on("untrack")
    async def on_untrack(self, payload: Any) -> dict[str, Any]:
        handle = self.handles[payload["key"]]
        handle.untrack()
        handle.untrack()
        return {"active": handle.active}
