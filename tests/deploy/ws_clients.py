"""Plain WebSocket clients: present in a room, observing it, and back by themselves."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException


class WsClient:
    """A client that is present as one user, over one connection, and observes over another.

    Args:
        port: Where to connect.
        user: The user.
        pause: Seconds until it connects again.

    Attributes:
        present: The refs of each key, as the observer knows them now.
        seen: Each key that came or left since the observer connected first, in order.
    """

    def __init__(self, port: int, user: str, pause: float) -> None:
        self.user = user
        self.present: dict[str, set[str]] = {}
        self.seen: list[str] = []
        #: How many connections it has made.
        self.connections = 0
        self._pause = pause
        self._url = f"ws://127.0.0.1:{port}"
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        ways: list[tuple[str, Callable[[ClientConnection], Coroutine[Any, Any, None]]]] = [
            (f"/rooms/1/{self.user}", self._stay),
            ("/observe/1", self._observe),
        ]
        self._tasks = [asyncio.create_task(self._come_back(*way)) for way in ways]
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def _come_back(
        self, path: str, use: Callable[[ClientConnection], Coroutine[Any, Any, None]]
    ) -> None:
        """Connect again whenever the connection ends."""
        while True:
            try:
                async with connect(
                    self._url + path,
                    proxy=None,
                    close_timeout=1,
                    max_queue=None,  # the end is noticed although nobody reads
                ) as connection:
                    self.connections += 1
                    await use(connection)
            except (OSError, WebSocketException):
                pass
            await asyncio.sleep(self._pause)

    async def _stay(self, connection: ClientConnection) -> None:
        await connection.wait_closed()

    async def _observe(self, connection: ClientConnection) -> None:
        first = await connection.recv()
        joins, _, _ = json.loads(first)
        self._show({key: _refs(entry) for key, entry in joins.items()})
        async for message in connection:
            self._apply(*json.loads(message))

    def _apply(self, joins: Any, leaves: Any, updates: Any) -> None:
        present = {key: set(refs) for key, refs in self.present.items()}
        for key, entry in [*joins.items(), *updates.items()]:
            present.setdefault(key, set()).update(_refs(entry))
        for key, entry in updates.items():
            present[key] -= {meta["phx_ref_prev"] for meta in entry["metas"]}
        for key, entry in leaves.items():
            present[key] -= _refs(entry)
        self._show({key: refs for key, refs in present.items() if refs})

    def _show(self, present: dict[str, set[str]]) -> None:
        self.seen += [f"{key} leaves" for key in self.present if key not in present]
        self.seen += [f"{key} joins" for key in present if key not in self.present]
        self.present = present


def _refs(entry: Any) -> set[str]:
    return {meta["phx_ref"] for meta in entry["metas"]}
