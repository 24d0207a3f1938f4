"""Clients of Python libraries in one process, which does as `driver.mjs` does.

The argument is the library. Its environment may lack everything else that the tests have, so this
file imports nothing of theirs.
"""

import asyncio
import importlib
import json
import sys
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlencode

#: Seconds until the first attempt to connect again.
PAUSE = 0.05


class Place:
    """A topic as a client shows it.

    Attributes:
        state: The presences, each with its metas, as the node lists them.
        log: The announcements, as `clients.mjs` has them.
        received: The broadcasts.
        joins: How often the client has joined.
    """

    def __init__(self, payload: Any) -> None:
        self.payload = payload
        self.state: dict[str, Any] = {}
        self.log: list[Any] = []
        self.received: list[Any] = []
        self.joins = 0

    def look(self, status: str) -> dict[str, Any]:
        log, self.log = self.log, []
        shown = {"state": self.state, "list": list(self.state.items()), "log": log}
        counts = {"status": status, "joins": self.joins, "states": self.joins}
        return {**shown, **counts, "response": None, "received": self.received}

    def show(self, state: dict[str, Any]) -> None:
        """Show another list of presences, and log the difference."""
        for what, one, other in (("join", state, self.state), ("leave", self.state, state)):
            for key, presence in one.items():
                refs = [ref for ref in refs_of(presence) if ref not in refs_of(other.get(key))]
                self.log += [[what, key, refs]] if refs else []
        self.state = state
        self.log.append(["sync", {key: refs_of(presence) for key, presence in state.items()}])


def refs_of(presence: Any) -> list[str]:
    return [meta["phx_ref"] for meta in presence["metas"]] if presence else []


class LibraryClient(Protocol):
    """A client of one library."""

    async def connect(self) -> None: ...
    async def disconnect(self) -> None: ...
    async def join(self, topic: str, payload: Any) -> Any: ...
    async def leave(self, topic: str) -> None: ...
    async def push(self, topic: str, event: str, payload: Any) -> Any: ...
    def look(self) -> dict[str, Any]: ...


class ListeningClient:
    """`phoenix-channels-python-client`: it listens, and keeps the list of presences itself.

    The library has no presences and no replies, so this is all that an application can do.
    """

    def __init__(self, url: str, params: dict[str, str], version: str) -> None:
        library = importlib.import_module("phoenix_channels_python_client")
        policy = library.ReconnectPolicy(
            base_delay_s=PAUSE,
            max_delay_s=4 * PAUSE,
            service_restart_min_delay_s=PAUSE,
            service_restart_max_delay_s=PAUSE,
            rapid_first_min_delay_s=PAUSE,
            rapid_second_min_delay_s=PAUSE,
            rapid_cooldown_base_s=PAUSE,
            rapid_cooldown_step_s=0,
        )
        self.places: dict[str, Place] = {}
        self.client = library.PHXChannelsClient(
            f"{url}/websocket?{urlencode(params)}",
            "none",
            protocol_version=version,
            reconnect_policy=policy,
        )

    async def connect(self) -> None:
        await self.client.__aenter__()

    async def disconnect(self) -> None:
        await self.client.shutdown("the test asks for it")

    async def join(self, topic: str, payload: Any) -> Any:
        place = self.places[topic] = Place(payload)

        async def take(message: Any) -> None:
            self._take(place, str(message.event), message.payload)

        await self.client.subscribe_to_topic(topic, take)
        return {"status": "ok", "response": {}}

    async def leave(self, topic: str) -> None:
        await self.client.unsubscribe_from_topic(topic)

    async def push(self, topic: str, event: str, payload: Any) -> Any:
        raise NotImplementedError

    def look(self) -> dict[str, Any]:
        joined = self.client.is_topic_joined
        return {
            topic: place.look("joined" if joined(topic) else "closed")
            for topic, place in self.places.items()
        }

    def _take(self, place: Place, event: str, payload: Any) -> None:
        match event:
            case "presence_state":
                place.joins += 1
                place.show(payload)
            case "presence_diff":
                place.show(changed(place.state, payload["joins"], payload["leaves"]))
            case _:
                place.received.append([event, payload])


def changed(state: dict[str, Any], joins: dict[str, Any], leaves: dict[str, Any]) -> dict[str, Any]:
    """A list of presences after a diff."""
    metas = {key: list(presence["metas"]) for key, presence in state.items()}
    for key, presence in joins.items():
        metas.setdefault(key, []).extend(presence["metas"])
    for key, presence in leaves.items():
        gone = refs_of(presence)
        metas[key] = [meta for meta in metas.get(key, []) if meta["phx_ref"] not in gone]
    return {key: {"metas": ones} for key, ones in metas.items() if ones}


class RealtimeClient:
    """`realtime` of Supabase: its own presences; a topic begins with `realtime:`."""

    PREFIX = "realtime:"

    def __init__(self, url: str, params: dict[str, str]) -> None:
        realtime = importlib.import_module("realtime")
        self.user = params["user"]
        self.places: dict[str, tuple[Place, Any]] = {}
        self._closed: dict[str, asyncio.Event] = {}
        self.client = realtime.AsyncRealtimeClient(
            url, params=params, initial_backoff=PAUSE, max_retries=8
        )

    async def connect(self) -> None:
        await self.client.connect()

    async def disconnect(self) -> None:
        await self.client.close()

    async def join(self, topic: str, payload: Any) -> Any:
        place, joined = Place(payload), asyncio.get_running_loop().create_future()
        self._closed[topic] = closed = asyncio.Event()
        config = {"broadcast": {}, "presence": {"key": self.user, "enabled": True}}
        channel = self.client.channel(topic.removeprefix(self.PREFIX), {"config": config})
        self.places[topic] = place, channel
        channel.on_presence_sync(lambda: place.show(self._listed(channel)))
        channel.on_broadcast("shout", lambda heard: place.received.append(plain(heard)))

        def settle(status: Any, error: Exception | None) -> None:
            if str(status).endswith("CLOSED"):
                closed.set()
            if str(status).endswith("SUBSCRIBED"):
                place.joins += 1
                if "meta" in payload:
                    self._keep(asyncio.create_task(channel.track(payload["meta"])))
            if not joined.done():
                status = "error" if error else "ok"
                joined.set_result({"status": status, "response": str(error or "")})

        await channel.subscribe(settle)
        return await joined

    async def leave(self, topic: str) -> None:
        await self.places[topic][1].unsubscribe()
        # A close names no join in version 1, so it would close the next channel of the topic.
        await self._closed[topic].wait()

    async def push(self, topic: str, event: str, payload: Any) -> Any:
        status = importlib.import_module("realtime.types").RealtimeAcknowledgementStatus
        answer = asyncio.get_running_loop().create_future()
        push = await self.places[topic][1].push(event, payload)
        push.receive(status.Ok, lambda _: answer.set_result({"status": "ok"}))
        push.receive(
            status.Error, lambda it: answer.set_result({"status": "error", "response": it})
        )
        return await answer

    def look(self) -> dict[str, Any]:
        return {
            topic: place.look("joined" if channel.is_joined else "closed")
            for topic, (place, channel) in self.places.items()
        }

    _tasks: set[asyncio.Task[None]] = set()  # noqa: RUF012 - of the process

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _listed(self, channel: Any) -> dict[str, Any]:
        """The presences of the library, with the names that Phoenix has for their parts."""
        return {
            key: {"metas": [renamed(dict(meta)) for meta in metas]}
            for key, metas in channel.presence_state().items()
        }


def renamed(meta: dict[str, Any]) -> dict[str, Any]:
    return {"phx_ref": meta.pop("presence_ref"), **meta}


def plain(heard: Any) -> list[Any]:
    return [heard["event"], heard["payload"]]


class Commands:
    """The orders, as in `clients.mjs`."""

    def __init__(self, make: Callable[[str, dict[str, str]], LibraryClient]) -> None:
        self._make = make
        self._clients: dict[str, LibraryClient] = {}

    async def connect(self, client: str, url: str, params: dict[str, str]) -> None:
        self._clients[client] = self._make(url, params)
        await self._clients[client].connect()

    async def join(self, client: str, topic: str, payload: Any) -> Any:
        return await self._clients[client].join(topic, payload)

    async def push(self, client: str, topic: str, event: str, payload: Any) -> Any:
        return await self._clients[client].push(topic, event, payload)

    async def leave(self, client: str, topic: str) -> None:
        await self._clients[client].leave(topic)

    async def forget(self, client: str) -> None:
        await self._clients.pop(client).disconnect()

    async def look(self) -> dict[str, Any]:
        return {name: {"rooms": client.look()} for name, client in self._clients.items()}


LIBRARIES: dict[str, Callable[[str, dict[str, str]], LibraryClient]] = {
    "phoenix-channels-python-client 1.0": partial(ListeningClient, version="1.0"),
    "phoenix-channels-python-client 2.0": partial(ListeningClient, version="2.0"),
    "realtime": RealtimeClient,
}


async def answer(commands: Commands, order: dict[str, Any]) -> None:
    """Do what a line asks for, and print the answer."""
    number, command = order.pop("id"), order.pop("do")
    do: Callable[..., Awaitable[Any]] = getattr(commands, command)
    try:
        reply = {"id": number, "value": await do(**order)}
    except Exception:
        reply = {"id": number, "error": traceback.format_exc()}
    print(json.dumps(reply), flush=True)


async def main() -> None:
    commands = Commands(LIBRARIES[sys.argv[1]])
    reader, tasks = asyncio.StreamReader(limit=2**26), set()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(json.dumps({"id": 0, "value": sys.version}), flush=True)
    async for line in reader:
        # In order, as far as they go without waiting: as in JavaScript.
        task = asyncio.create_task(answer(commands, json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    asyncio.run(main())
