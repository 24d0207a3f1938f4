"""Real servers of a bus on free ports of the loopback address: nats-server and redis-server.

Each runs in a directory of the test, without persistence, and ends with the block `running`.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_port, listens
from tests.support.waiting import DEADLINE, eventually

LOOPBACK = "127.0.0.1"
#: Where servers of Debian are, which is not on the path of every user.
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])


class BusServer(ABC):
    """A server that a test may kill, stop and start again, on the same port.

    Args:
        directory: For its files; several servers may share it.
        host: The address that it listens on.
        prefix: A command that runs it in other surroundings, as `nsenter`.
        user: The name of the only user, or None for a server that needs no credentials.
        password: The password of that user.
        mute: Whether that user must not publish.
        tls: The directory of ``server.pem``, ``server.key`` and ``authority.pem``, or None.
    """

    program = ""
    scheme = ""
    tls_scheme = ""
    #: What it logs when it disconnects a client that reads too slowly.
    slow_consumer = ""

    def __init__(
        self,
        directory: Path,
        *,
        host: str = LOOPBACK,
        prefix: Sequence[str] = (),
        user: str | None = None,
        password: str = "",
        mute: bool = False,
        tls: Path | None = None,
    ) -> None:
        self.directory = directory
        self.host, self.prefix = host, prefix
        self.user, self.password, self.tls = user, password, tls
        self.mute = mute
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The setting for a client, with the credentials."""
        user = f"{self.user}:{self.password}@" if self.user is not None else ""
        scheme = self.scheme if self.tls is None else self.tls_scheme
        return f"{scheme}://{user}{self.host}:{self.port}"

    @property
    def log(self) -> str:
        """The lines that it has logged."""
        return self._log.read_text()

    @property
    def _log(self) -> Path:
        return self.directory / f"{self.program}-{self.port}.log"

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        command = shutil.which(self.program, path=SEARCH)
        if command is None:
            pytest.skip(f"needs the package {self.program}")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.prefix, command, *self._arguments()],
                stdout=log,
                stderr=log,
                cwd=self.directory,
            )
        eventually(self._accepts, f"{self.program} accepts connections")

    def kill(self) -> None:
        """Kill it with SIGKILL, if it runs."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it with SIGTERM, if it runs. Its data are lost."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Kill it, and start it on the same port."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Stop it as a hung server: its connections stay open, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run after `pause`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    @abstractmethod
    def _arguments(self) -> list[str]:
        """The arguments of the command."""

    def _accepts(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self.program} ended"
        if self.prefix:  # it may be where this process cannot connect
            return listens(self._process.pid, self.port)
        with socket.socket() as probe:
            return probe.connect_ex((self.host, self.port)) == 0

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.send_signal(signal.SIGCONT)
            self._process.wait(DEADLINE)
            self._process = None


class NatsServer(BusServer):
    """A nats-server.

    Args:
        routes: Ports for the routes of the other servers of its cluster, or None for no cluster.
        denied: A subject on which the user must not subscribe.
        nkey: The public key of the only user, instead of a password.
        subscriptions: Subscriptions of one client at most; 0 for any number.
        connections: Connections at most; 0 for any number.
        payload: Bytes of the longest message.
        pending: Bytes that may wait for one client, which is a slow consumer beyond.
        write_deadline: Seconds for which a client may accept nothing, with the same effect.
        options: See `BusServer`.
    """

    program, scheme, tls_scheme = "nats-server", "nats", "tls"
    slow_consumer = "Slow Consumer Detected"

    def __init__(
        self,
        directory: Path,
        *,
        routes: list[int] | None = None,
        denied: str | None = None,
        nkey: str | None = None,
        subscriptions: int = 0,
        connections: int = 0,
        payload: int = 1024 * 1024,
        pending: int = 64 * 1024 * 1024,
        write_deadline: float = 10.0,
        **options: Any,
    ) -> None:
        super().__init__(directory, **options)
        self._write_deadline, self._connections = write_deadline, connections
        self._nkey, self._subscriptions, self._payload = nkey, subscriptions, payload
        self.route_port = free_port()
        self._routes, self._denied, self._pending = routes, denied, pending

    def _arguments(self) -> list[str]:
        settings: dict[str, object] = {"max_pending": self._pending, "max_payload": self._payload}
        settings["write_deadline"] = f"{self._write_deadline}s"
        if self.user is not None:
            account: dict[str, object] = {"user": self.user, "password": self.password}
            if self._denied is not None:
                account["permissions"] = {"subscribe": {"deny": self._denied}}
            if self.mute:
                account["permissions"] = {"publish": {"deny": ">"}}
            settings["authorization"] = {"users": [account]}
        if self._nkey is not None:
            settings["authorization"] = {"users": [{"nkey": self._nkey}]}
        if self._connections:
            settings["max_connections"] = self._connections
        if self._subscriptions:
            settings["max_subscriptions"] = self._subscriptions
        if self.tls is not None:
            files = {"cert_file": self.tls / "server.pem", "key_file": self.tls / "server.key"}
            settings["tls"] = {name: str(path) for name, path in files.items()}
        if self._routes is not None:
            urls = [f"nats://127.0.0.1:{port}" for port in self._routes]
            listen = f"127.0.0.1:{self.route_port}"
            settings["cluster"] = {"name": "test", "listen": listen, "routes": urls}
        config = self.directory / f"nats-{self.port}.conf"
        config.write_text(json.dumps(settings))
        return ["--addr", self.host, "--port", str(self.port), "--config", str(config)]


class RedisServer(BusServer):
    """A redis-server.

    Args:
        replica_of: The server of which it is a replica at first, or None for a master.
        denied: A channel on which the user must not subscribe.
        pending: Bytes that may wait for one subscriber, whose connection is killed beyond.
        connections: Connections at most; 0 for any number.
        load_delay: Microseconds that it takes to load one key at its start.
        options: See `BusServer`.
    """

    program, scheme, tls_scheme = "redis-server", "redis", "rediss"
    slow_consumer = "overcoming of output buffer limits"

    def __init__(
        self,
        directory: Path,
        *,
        replica_of: "RedisServer | None" = None,
        denied: str | None = None,
        pending: int = 32 * 1024 * 1024,
        connections: int = 0,
        load_delay: int = 0,
        cluster_mode: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(directory, **options)
        self._replica_of, self._denied, self._pending = replica_of, denied, pending
        self._cluster_mode, self._connections = cluster_mode, connections
        self._load_delay = load_delay

    def _arguments(self) -> list[str]:
        port = "port" if self.tls is None else "tls-port"
        settings = {"port": "0", port: str(self.port), "bind": self.host, "save": "''"}
        settings |= {"appendonly": "no", "protected-mode": "no", "repl-diskless-sync-delay": "0"}
        settings["client-output-buffer-limit"] = f"pubsub {self._pending} {self._pending} 0"
        if self._replica_of is not None:
            settings["replicaof"] = f"127.0.0.1 {self._replica_of.port}"
        if self._connections:
            settings["maxclients"] = str(self._connections)
        if self._load_delay:
            settings["key-load-delay"] = str(self._load_delay)
            settings["loading-process-events-interval-bytes"] = "1024"
        if self._cluster_mode:
            settings["cluster-enabled"] = "yes"
            settings["cluster-config-file"] = f"nodes-{self.port}.conf"
        if self.user is not None:
            channels = "allchannels" if self._denied is None else "resetchannels &allowed.*"
            settings["user"] = f"{self.user} on >{self.password} ~* {channels} +@all"
            settings["user"] += " -publish" if self.mute else ""
        if self.tls is not None:
            settings["tls-cert-file"] = str(self.tls / "server.pem")
            settings["tls-key-file"] = str(self.tls / "server.key")
            settings["tls-ca-cert-file"] = str(self.tls / "authority.pem")
            settings["tls-auth-clients"] = "no"
        lines = [f"{name} {value}" for name, value in settings.items()]
        if self.user is not None:
            lines.append("user default off")
        config = self.directory / f"redis-{self.port}.conf"
        config.write_text("\n".join([*lines, f"dir {self.directory}", ""]))
        return [str(config)]


#: The servers by the names of their engines.
ENGINES: dict[str, type[BusServer]] = {"nats": NatsServer, "redis": RedisServer}


@contextmanager
def running(*servers: BusServer) -> Iterator[None]:
    """Start servers, and end them with the block; skips the test where they are not installed."""
    try:
        for server in servers:
            server.start()
        yield
    finally:
        for server in servers:
            server.kill()
