"""Clients of the package `realtime` of PyPI, unmodified: a process that takes orders, line by line.

The orders and answers are those of `supabase_clients.mjs`.
"""

import asyncio
import json
import sys
from importlib import import_module
from typing import Any

#: The package, which only this process has on its path, see `supabase_packages.py`.
AsyncRealtimeClient: Any = import_module("realtime").AsyncRealtimeClient


def plain(value: Any) -> Any:
    """A value without the refs of presences."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items() if name != "presence_ref"}
    return value


class Topic:
    """A subscription, and all that it was told."""

    def __init__(self, client: Any, name: str, config: Any, meta: Any, table: str | None) -> None:
        self.seen: dict[str, list[Any]] = {
            each: [] for each in ("statuses", "errors", "broadcasts", "presences", "system")
        }
        self.meta = meta
        presence = {"key": "", "enabled": False, **config.get("presence", {})}
        params = {"config": {"broadcast": None, "private": False, **config, "presence": presence}}
        self.channel = client.channel(name, params)
        self.channel.on_broadcast("*", self._broadcast)
        self.channel.on_presence_sync(lambda: self.seen["presences"].append(["sync"]))
        self.channel.on_presence_join(self._noting("join"))
        self.channel.on_presence_leave(self._noting("leave"))
        self.channel.on_system(lambda payload: self.seen["system"].append(dict(payload)))
        if table:
            self.channel.on_postgres_changes("*", print, table=table)

    def _broadcast(self, payload: Any) -> None:
        self.seen["broadcasts"].append([payload["event"], payload["payload"]])

    def _noting(self, kind: str) -> Any:
        def note(key: str, current: Any, changed: Any) -> None:
            self.seen["presences"].append([kind, key, plain(changed)])

        return note

    async def subscribe(self) -> str:
        await self.channel.subscribe(self._status)
        return str(self.seen["statuses"][0])

    def _status(self, status: Any, error: Exception | None) -> None:
        self.seen["statuses"].append(status.value)
        if error is not None:
            self.seen["errors"].append(str(error))
        if status.value == "SUBSCRIBED" and self.meta:
            self.tracking = asyncio.ensure_future(self.channel.track(self.meta))

    def look(self) -> dict[str, Any]:
        subscribed = self.seen["statuses"].count("SUBSCRIBED")
        state = plain(self.channel.presence_state())
        return {**self.seen, "subscribed": subscribed, "state": state}


class Commands:
    """One method for each order."""

    def __init__(self) -> None:
        self.clients: dict[str, Any] = {}
        self.topics: dict[tuple[str, str], Topic] = {}

    async def connect(self, client: str, url: str, apikey: str, token: str | None = None) -> None:
        made = self.clients[client] = AsyncRealtimeClient(url, apikey)
        if token:
            await made.set_auth(token)
        await made.connect()

    async def connected(self, client: str) -> bool:
        return bool(self.clients[client].is_connected)

    async def subscribe(
        self, client: str, topic: str, config: Any = None, meta: Any = None, table: Any = None
    ) -> str:
        made = Topic(self.clients[client], topic, config or {}, meta, table)
        self.topics[client, topic] = made
        return await made.subscribe()

    async def send(self, client: str, topic: str, event: str, payload: Any) -> str:
        await self.topics[client, topic].channel.send_broadcast(event, payload)
        return "ok"

    async def track(self, client: str, topic: str, meta: Any) -> str:
        await self.topics[client, topic].channel.track(meta)
        return "ok"

    async def untrack(self, client: str, topic: str) -> str:
        await self.topics[client, topic].channel.untrack()
        return "ok"

    async def authorise(self, client: str, token: str) -> None:
        await self.clients[client].set_auth(token)

    async def leave(self, client: str, topic: str) -> None:
        await self.clients[client].remove_channel(self.topics[client, topic].channel)

    async def look(self, client: str, topic: str) -> dict[str, Any]:
        return self.topics[client, topic].look()

    async def close(self, client: str) -> None:
        await self.clients[client].close()


async def answer(commands: Commands, order: dict[str, Any]) -> None:
    """Carry out an order, and print the answer."""
    number, command = order.pop("id"), order.pop("do")
    try:
        value = await getattr(commands, command)(**order)
    except Exception as error:
        print(json.dumps({"id": number, "error": repr(error)}), flush=True)
    else:
        print(json.dumps({"id": number, "value": value}), flush=True)


async def main() -> None:
    commands, tasks = Commands(), set()
    print(json.dumps({"id": 0, "value": sys.version}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        tasks.add(asyncio.ensure_future(answer(commands, json.loads(line))))


if __name__ == "__main__":
    asyncio.run(main())
