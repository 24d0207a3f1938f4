"""A client that sends and reads raw frames over a real WebSocket."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

from tests.support.waiting import DEADLINE

from .served_app import ServedApp


class WsClient:
    """One WebSocket connection; it sends frames as they are, valid or not."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, frame: str | bytes) -> None:
        """Send a frame as it is."""
        await self.connection.send(frame)

    async def read(self) -> str | bytes:
        """The next frame, as it is."""
        async with asyncio.timeout(DEADLINE):
            return await self.connection.recv()

    async def receives(self, *frames: str | bytes) -> None:
        """The next frames are exactly these."""
        for expected in frames:
            assert await self.read() == expected

    async def ask(self, frame: str | bytes, *answers: str | bytes) -> None:
        """Send a frame; the next frames are exactly these."""
        await self.send(frame)
        await self.receives(*answers)

    async def payload(self, head: str) -> Any:
        """The payload of the next frame, which begins like this."""
        frame = await self.read()
        assert isinstance(frame, str)
        assert frame.startswith(head), frame
        return json.loads(frame)[-1]

    async def join(self, topic: str, payload: Any = None, ref: str = "3") -> None:
        """Join, and read the reply."""
        await self.send(json.dumps([ref, ref, topic, "phx_join", payload or {}]))
        frame = json.loads(await self.read())
        assert frame[:4] == [ref, ref, topic, "phx_reply"], frame
        assert frame[4]["status"] == "ok", frame

    async def present(self, topic: str, key: str, ref: str = "3") -> dict[str, Any]:
        """Join as somebody; returns the state that follows."""
        await self.join(topic, {"track": key}, ref)
        state = await self.payload(f'["{ref}",null,"{topic}","presence_state",')
        return dict(state)

    async def is_alive(self) -> None:
        """The connection still answers, and nothing else came before."""
        await self.ask(
            '[null,"beat","phoenix","heartbeat",{}]',
            '[null,"beat","phoenix","phx_reply",{"status":"ok","response":{}}]',
        )

    async def closed(self) -> int:
        """The code with which the server closes, after frames that nobody read."""
        try:
            while True:
                await self.read()
        except ConnectionClosed as error:
            return error.rcvd.code if error.rcvd is not None else 1006


def url(served_app: ServedApp, query: str = "vsn=2.0.0", path: str = "/socket/websocket") -> str:
    """The URL of an application's WebSockets."""
    return f"ws://127.0.0.1:{served_app.port}{path}?{query}"


@asynccontextmanager
async def ws_client(
    served_app: ServedApp,
    query: str = "vsn=2.0.0",
    *,
    origin: str | None = None,
    subprotocols: Sequence[str] = (),
) -> AsyncIterator[WsClient]:
    """A client that is connected."""
    offered = [Subprotocol(one) for one in subprotocols]
    async with connect(
        url(served_app, query),
        origin=None if origin is None else Origin(origin),
        subprotocols=offered or None,
        ping_interval=None,
        compression=None,
        proxy=None,
        max_size=None,
        max_queue=None,
    ) as connection:
        yield WsClient(connection)
