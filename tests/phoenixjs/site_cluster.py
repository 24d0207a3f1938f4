"""A whole site: server processes in one cluster, a balancer before them, phoenix.js clients."""

import asyncio
import itertools
import os
import tempfile
from collections.abc import Collection
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.tcp_balancer import Balancer
from tests.support.waiting import until

from .clients import Clients, NodeClients
from .cuttable_links import CuttableLinks
from .presence_ledger import Ledger
from .servers import Server

#: Nodes that notice a cut soon, and are not misled by a busy machine.
_NODES = {
    "ADSUM_HEARTBEAT_INTERVAL": "0.3",
    "ADSUM_DOWN_AFTER": "3",
    "ADSUM_LINK_GRACE": "0.5",
}
_serial = itertools.count()

Metas = dict[str, dict[str, Any]]


class SiteCluster:
    """See the module; leaving the block ends everything.

    Args:
        count: How many nodes.
        environment: Further settings of the nodes.
        clients: In what surroundings phoenix.js runs; in Node.js, if not said.
        fixed_names: Whether each node has the same name in each life; else each life makes its own.
        options: See `app.Options`.

    Attributes:
        servers: By the name of the node.
        seen: The announcements to each client on each topic.
    """

    def __init__(
        self,
        count: int,
        environment: dict[str, str] | None = None,
        clients: Clients | None = None,
        fixed_names: bool = True,
        **options: Any,
    ) -> None:
        self.servers: dict[str, Server] = {}
        self.clients = clients or NodeClients()
        self.balancer = Balancer()
        self.seen: dict[tuple[str, str], Ledger] = {}
        self._names = [f"n{number}" for number in range(1, count + 1)]
        self._environment = {**_NODES, **(environment or {})}
        self._fixed_names = fixed_names
        self._options = options
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            # Short, for there will be Unix sockets in it.
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ph-")))
            self.links = CuttableLinks(directory, self._names, self._name_of)
            stack.push_async_callback(self.links.stop)
            stack.push_async_callback(self.balancer.stop)
            await self.balancer.start()
            cluster = {"ADSUM_CLUSTER": f"phoenixjs-{os.getpid()}-{next(_serial)}"}
            for name in self._names:
                environment = {**self._environment, **cluster, **self.links.settings(name)}
                if not self._fixed_names:
                    del environment["ADSUM_NAME"]
                server = Server(directory / f"{name}.log", environment, **self._own_options())
                self.servers[name] = server
                stack.push_async_callback(server.kill)
            await asyncio.gather(*(self.start(name) for name in self._names))
            stack.push_async_callback(self.clients.stop)
            await self.clients.start()
            await until(self._is_linked, "the nodes find each other")
            self._stack = stack.pop_all()
        return self

    def _own_options(self) -> dict[str, Any]:
        """The options of a server; in its origins, ``{port}`` is that of the balancer."""
        origins = [one.format(port=self.balancer.port) for one in self._options.get("origins", ())]
        return {**self._options, "origins": origins} if origins else self._options

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    # Nodes.

    @property
    def alive(self) -> list[str]:
        return [name for name, server in self.servers.items() if server.alive]

    async def start(self, name: str) -> None:
        """Start a node, for the first time or again."""
        server = self.servers[name]
        await server.start()
        await self.links.open(name)
        self.balancer.ports[name] = server.port

    async def kill(self, name: str) -> None:
        """End a node as a crash does."""
        self._take_out(name)
        await self.servers[name].kill()

    async def terminate(self, name: str) -> None:
        """End a node as a deployment does."""
        self._take_out(name)
        await self.servers[name].terminate()

    def _take_out(self, name: str) -> None:
        self.links.close(name)
        self.balancer.ports.pop(name, None)

    async def clear(self) -> None:
        """Let all nodes live, and nobody be connected."""
        self.links.heal()
        for client in await self.look():
            await self.clients.ask("forget", client=client)
        self.seen.clear()
        self.complaints()
        for name in set(self.servers) - set(self.alive):
            await self.start(name)
        await until(self._is_linked, "the nodes find each other")

    def complaints(self) -> list[str]:
        """What the servers have written into their logs since the last time this was asked."""
        return [line for server in self.servers.values() for line in server.complaints()]

    # Clients.

    async def connect(self, client: str, user: str, node: str | None = None, **how: Any) -> None:
        """Connect a client to whatever node the balancer chooses, or to one.

        Args:
            client: Its name, which the balancer knows it by.
            user: Whom it is for.
            node: If not the balancer, but a node.
            how: Options of phoenix.js, and those of `driver.mjs`.
        """
        port = self.servers[node].port if node else self.balancer.port
        params = {"client": client, "user": user}
        url = f"ws://127.0.0.1:{port}/socket"
        await self.clients.ask("connect", client=client, url=url, params=params, **how)

    async def join(
        self, client: str, topic: str, meta: Any = None, linger: float = 0, **how: Any
    ) -> Any:
        """Let a client join a room, as an observer if it has no meta."""
        self.seen[client, topic] = Ledger()
        payload = {"observe": True} if meta is None else {"meta": meta, "linger": linger}
        return await self.clients.ask("join", client=client, topic=topic, payload=payload, **how)

    async def look(self) -> dict[str, Any]:
        """What every client shows; enters what they announced into their ledgers."""
        looks = await self.clients.look()
        for client, look in looks.items():
            for topic, room in look["rooms"].items():
                try:
                    self.seen[client, topic].take(room["log"])
                except AssertionError as error:
                    raise AssertionError(f"{client} in {topic}: {error}; {room}") from None
        return looks

    # What has to be so.

    async def agree(
        self, topic: str, expected: dict[str, list[Any]], away: Collection[str] = ()
    ) -> None:
        """Wait until every node and every client shows exactly this.

        Args:
            topic: The room.
            expected: The metas by key, without refs.
            away: Clients that have disconnected, and so show what was.
        """
        problem: list[str] = []

        async def agreed() -> bool:
            problem[:] = await self.disagreements(topic, expected, away)
            return not problem

        try:
            await until(agreed, "everybody shows the same")
        except AssertionError as error:
            raise AssertionError("\n".join([str(error), *problem])) from None

    async def disagreements(
        self, topic: str, expected: dict[str, list[Any]], away: Collection[str] = ()
    ) -> list[str]:
        """Who shows what, if it is not what is expected, or not what another shows."""
        names = self.alive
        lists = await asyncio.gather(*(self.servers[name].presences(topic) for name in names))
        looks = await self.look()
        if None in lists:
            return ["a node does not answer"]
        listed = [comparable(one) for one in lists]
        problems = [
            f"{name} lists {one}, expected is {expected}"
            for name, one in zip(names, listed, strict=True)
            if contents(one) != sorted_metas(expected) or one != listed[0]
        ]
        for client, look in looks.items():
            room = look["rooms"].get(topic)
            if room is None or client in away:
                continue
            if room["status"] != "joined":
                problems.append(f"{client} is {room['status']}")
            elif comparable(room["state"]) != listed[0] or dict(room["list"]) != room["state"]:
                problems.append(f"{client} shows {room['state']}, listed is {listed[0]}")
        return problems

    async def _is_linked(self) -> bool:
        answers = [await self.servers[name].get("members") for name in self.alive]
        return all(
            answer is not None
            and len(answer) == len(self.alive)
            and set(answer.values()) <= {"self", "up"}
            for answer in answers
        )

    def _name_of(self, pid: int) -> str | None:
        return next((name for name, server in self.servers.items() if server.pid == pid), None)


def comparable(presences: dict[str, Any]) -> dict[str, Metas]:
    """Presences as the metas by key and ref.

    The order of metas within a key is left out: phoenix.js appends what joins, and a state has the
    order of the nodes. So is `phx_ref_prev`: it is in the diff of an update, and neither in a state
    nor in what a node lists, so clients that came before and after the update differ in it.
    """
    return {
        key: {
            meta["phx_ref"]: {
                name: value
                for name, value in meta.items()
                if name not in ("phx_ref", "phx_ref_prev")
            }
            for meta in presence["metas"]
        }
        for key, presence in presences.items()
    }


def contents(listed: dict[str, Metas]) -> dict[str, list[Any]]:
    """The metas by key, whatever their refs are."""
    return sorted_metas({key: metas.values() for key, metas in listed.items()})


def sorted_metas(metas: dict[str, Any]) -> dict[str, list[Any]]:
    return {key: sorted(ones, key=repr) for key, ones in metas.items()}
