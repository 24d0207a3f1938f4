"""Engines that carry the links of nodes: servers of NATS and Redis of our own, and their counts."""

import json
import os
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar
from urllib.request import urlopen

from benchmarks.redis_presence import free_port
from benchmarks.waiting import block_until

#: Where servers of Debian are, which is not on the path of every user.
_SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
_TICKS = os.sysconf("SC_CLK_TCK")


class Engine(ABC):
    """One server on a free port of the loopback, without persistence.

    Attributes:
        port: Its port.
    """

    program: ClassVar[str]
    #: The module that a client needs.
    library: ClassVar[str]

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def missing(cls) -> str:
        """The program or package that is not installed; empty if both are there."""
        if shutil.which(cls.program, path=_SEARCH) is None:
            return f"{cls.program} is not installed"
        return "" if find_spec(cls.library) else f"the Python package {cls.library} is not there"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run for the length of a block."""
        command = shutil.which(self.program, path=_SEARCH)
        with tempfile.TemporaryDirectory() as directory:
            log = subprocess.DEVNULL
            self._process = subprocess.Popen(
                [command or self.program, *self._arguments(directory)], stdout=log, stderr=log
            )
            try:
                block_until(self._answers, pause=0.02, patience=10)
                yield
            finally:
                self._process.kill()
                self._process.wait()

    @property
    def cpu(self) -> float:
        """Seconds of CPU so far, as the kernel counts them (Linux)."""
        assert self._process is not None
        text = Path(f"/proc/{self._process.pid}/stat").read_text()
        user, system = text.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / _TICKS

    @property
    @abstractmethod
    def url(self) -> str:
        """The setting `carrier`."""

    @property
    @abstractmethod
    def publishes(self) -> int:
        """Messages that clients have published so far, by the count of the engine."""

    @abstractmethod
    def _arguments(self, directory: str) -> list[str]:
        """The arguments of the command."""

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.program} did not start")
        try:
            return self.publishes >= 0
        except OSError:
            return False


class Nats(Engine):
    """A nats-server, with its monitoring on a second port."""

    program, library = "nats-server", "nats"

    def __init__(self) -> None:
        super().__init__()
        self._monitoring = free_port()

    @property
    def url(self) -> str:
        """See `Engine`."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def publishes(self) -> int:
        """See `Engine`."""
        with urlopen(f"http://127.0.0.1:{self._monitoring}/varz", timeout=5) as answer:
            return int(json.load(answer)["in_msgs"])

    def _arguments(self, directory: str) -> list[str]:
        ports = ["--port", str(self.port), "--http_port", str(self._monitoring)]
        return ["--addr", "127.0.0.1", *ports]


class Redis(Engine):
    """A redis-server."""

    program, library = "redis-server", "redis"

    @property
    def url(self) -> str:
        """See `Engine`."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def publishes(self) -> int:
        """See `Engine`."""
        import redis

        try:
            with redis.Redis(port=self.port) as client:
                counts = client.info("commandstats")
        except redis.ConnectionError as error:
            raise OSError(str(error)) from None
        return int(counts.get("cmdstat_publish", {"calls": 0})["calls"])

    def _arguments(self, directory: str) -> list[str]:
        options = {"port": str(self.port), "bind": "127.0.0.1", "dir": directory, "save": ""}
        return [part for name, value in options.items() for part in (f"--{name}", value)]
