"""The servers of the demo and the network between them, with everything one may do to them."""

import asyncio
import os
import secrets
import signal
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from engine import Engine, EngineError
from incidents import Incidents
from network import Network
from process import Server

#: What may be done to a server in which state.
ACTIONS = {
    "kill": ("running", "paused"),
    "pause": ("running",),
    "resume": ("paused",),
    "restart": ("running", "dead"),
}


class RefusedError(Exception):
    """The action makes no sense in the present state."""


class Cluster:
    """All servers, as a context manager: when it ends they have ended, too.

    Args:
        nodes: How many.
        first_port: The port of the first server, the others follow; 0 takes free ones.
        carrier: ``nats`` or ``redis`` to link the servers over an engine that is started, too.

    Attributes:
        engine: The engine; None if the servers are linked directly.
        cut: The last server before the cut in the network, if there is one.
        changed: Set, and replaced by a new one, when something in `describe` changes.
        ending: Whether all of it is about to stop.

    Raises:
        EngineError: The engine is not installed.
    """

    def __init__(self, nodes: int, first_port: int = 0, carrier: str | None = None) -> None:
        self.name = f"demo-{os.getpid()}-{secrets.token_hex(4)}"
        self.incidents = Incidents()
        self.cut: str | None = None
        self.changed = asyncio.Event()
        self.ending = False
        self._directory = tempfile.TemporaryDirectory(prefix="adsum-demo-")
        names = [f"n{number}" for number in range(1, nodes + 1)]
        self.network = Network(Path(self._directory.name), names, self._name_of)
        self.engine = self._make_engine(carrier) if carrier is not None else None
        self.servers: dict[str, Server] = {}
        for number, name in enumerate(names):
            links = self.network.settings(name) if self.engine is None else self.engine.settings()
            environment = {"ADSUM_CLUSTER": self.name, **links, **self.network.answers(name)}
            port = first_port and first_port + number
            self.servers[name] = Server(name, port, environment, self._reported, self._ended)

    async def __aenter__(self) -> Self:
        try:
            if self.engine is not None:
                await self.engine.start()
            await asyncio.gather(*[self._start(server) for server in self.servers.values()])
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def _make_engine(self, carrier: str) -> Engine:
        try:
            engine = Engine(carrier, self._directory.name)
        except EngineError:
            self._directory.cleanup()
            raise
        engine.changed = self._tell
        return engine

    def end(self) -> None:
        """Start nothing any more, and let go of those who wait for changes."""
        self.ending = True
        self._tell()

    async def stop(self) -> None:
        """End every process: ask first, then insist."""
        self.end()
        await asyncio.gather(*[server.stop() for server in self.servers.values()])
        if self.engine is not None:
            await self.engine.kill()
        self.network.close()
        self._directory.cleanup()

    # What may be done.

    async def act(self, action: str, name: str) -> None:
        """Do one of `ACTIONS` to a server.

        Raises:
            RefusedError: It makes no sense now.
            StartError: It was to be started, and does not.
        """
        server = self.servers[name]
        if server.state not in ACTIONS[action]:
            raise RefusedError(f"cannot {action} {name}: it is {server.state}")
        if action == "restart":
            await self._restart(server)
        elif action == "kill":
            self._signal(server, "kill", signal.SIGKILL, "stopping")
        elif action == "pause":
            self._signal(server, "pause", signal.SIGSTOP, "paused")
        elif action == "resume":
            self._signal(server, "resume", signal.SIGCONT, "running")

    def split(self, name: str) -> None:
        """Cut the network after a server: it and all before it on one side.

        Raises:
            RefusedError: There is a cut already, nobody would be on the other side, or the servers
                are linked over an engine.
        """
        names = self.network.names
        if self.engine is not None:
            raise RefusedError(f"cannot cut: the servers are linked over {self.engine.program}")
        if self.cut or name == names[-1]:
            raise RefusedError(f"cannot cut after {name}: {'it is cut' if self.cut else 'no one'}")
        self.cut = name
        self.network.split({*names[: names.index(name) + 1]})
        self._begin("split", name, self._apart())

    def heal(self) -> None:
        """Mend the cut.

        Raises:
            RefusedError: There is none.
        """
        if self.cut is None:
            raise RefusedError("the network is whole")
        self._begin("heal", self.cut, self._apart())
        self.cut = None
        self.network.heal()
        self._tell()

    async def act_on_engine(self, action: str) -> None:
        """Kill the engine, or start it again.

        Args:
            action: ``kill`` or ``start``.

        Raises:
            RefusedError: It makes no sense now, or there is no engine.
            EngineError: It was to be started, and does not.
        """
        if self.engine is None:
            raise RefusedError("the servers are linked directly")
        if self.engine.state != ("running" if action == "kill" else "dead") or self.ending:
            raise RefusedError(f"cannot {action} {self.engine.program}: it is {self.engine.state}")
        if action == "kill":
            self._begin("outage", self.engine.program, {})
            await self.engine.kill()
        else:
            await self.engine.start()
            self._begin("return", self.engine.program, {})

    def describe(self) -> dict[str, Any]:
        """Everything that the page shows of the cluster, as JSON."""
        servers = self.servers.values()
        return {
            "cluster": self.name,
            "now": time.time(),
            "down_after": max(server.down_after for server in servers),
            "cut": self.cut,
            "engine": None if self.engine is None else self.engine.describe(),
            "nodes": [server.describe() for server in servers],
            "incidents": [incident.describe() for incident in self.incidents.recent],
        }

    async def _restart(self, server: Server) -> None:
        if server.state == "running":
            self._signal(server, "stop", signal.SIGTERM, "stopping")
            await server.stop()
        if self.ending:
            raise RefusedError("the demo is ending")
        self._begin_with(server, "start")
        await self._start(server)

    async def _start(self, server: Server) -> None:
        server.state = "starting"
        self._tell()
        await server.start()
        await self.network.connect(server.name)

    def _signal(self, server: Server, action: str, number: int, state: str) -> None:
        """Send a signal, and start the clocks of those who will notice."""
        server.state = state
        self._begin_with(server, action)
        server.signal(number)

    # Who will notice what.

    def _begin_with(self, server: Server, action: str) -> None:
        """All others will, unless the network is cut between."""
        others = [one for one in self.servers if one != server.name]
        joined = [one for one in others if self.network.joins(one, server.name)]
        self._begin(action, server.name, {one: {server.name} for one in joined})

    def _apart(self) -> dict[str, set[str]]:
        """By server, those that run on the other side of the cut."""
        running = self._running()
        return {
            one: {other for other in running if not self.network.joins(one, other)}
            for one in running
        }

    def _begin(self, action: str, node: str, concerns: dict[str, set[str]]) -> None:
        awake = self._running()
        concerns = {one: nodes for one, nodes in concerns.items() if one in awake}
        self.incidents.begin(action, node, concerns, time.monotonic(), time.time())
        self._tell()

    def _running(self) -> list[str]:
        return [name for name, server in self.servers.items() if server.state == "running"]

    # What is heard of the servers.

    def _reported(self, server: Server, report: dict[str, Any]) -> None:
        if report.get("ready"):
            self.incidents.started(server.name, report["at"])
            self._tell()
        elif self.incidents.reported(
            server.name, report["at"], report["joined"], report["present"]
        ):
            self._tell()

    def _ended(self, server: Server) -> None:
        self.incidents.ended(server.name)
        self._tell()

    def _name_of(self, pid: int) -> str | None:
        """Which server is the process of this number."""
        return next((name for name, server in self.servers.items() if server.pid == pid), None)

    def _tell(self) -> None:
        """Wake everybody who waits for changes."""
        self.changed.set()
        self.changed = asyncio.Event()
