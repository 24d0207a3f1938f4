"""A real node under attack, an honest one beside it, and checks from outside of both."""

import os
import re
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from adsum.transport.contract import NodeIdentity
from tests.support.ports import free_port
from tests.support.waiting import eventually
from tests.support.worker_processes import Worker, Workers, sibling_sockets

#: What a service has where nobody raised it.
NORMAL_FILES = 1024
#: A node that is attacked answers within this many seconds, on a busy machine.
RESPONSIVE = 2.0
SECRET = "a secret of the whole cluster"
MIB = 1024 * 1024

_MORE = re.compile(r"\(and (\d+) more like it\)$")


@dataclass
class AttackedNode:
    """The node that is attacked, and the honest one.

    Attributes:
        secret: That of the cluster, if it has one.
        address: Where the node is attacked.
        log: What the node has logged so far.
    """

    workers: Workers
    victim: Worker
    honest: Worker
    cluster: str
    secret: bytes | None
    address: str
    log: Path
    began: float

    def who(self, name: str) -> NodeIdentity:
        """A member of this cluster."""
        return NodeIdentity(self.cluster, name, 1, ())

    def newcomer(self) -> Worker:
        """Another honest node, which knows only the one that is attacked."""
        return self.workers.start(**_settings(self.cluster, self.secret, peers=self.address))

    def answers(self) -> None:
        """The node says in time what it lists, which is what it listed before."""
        began = time.monotonic()
        assert self.victim.ask("list", "room") == ["honest", "mine"]
        assert time.monotonic() - began < RESPONSIVE

    def is_unharmed(self) -> None:
        """Both honest nodes list each other's, never saw them leave, and are linked."""
        self.answers()
        assert self.honest.ask("list", "room") == ["honest", "mine"]
        for worker in (self.victim, self.honest):
            assert worker.left("mine") is worker.left("honest") is None
        for one, other in ((self.victim, self.honest), (self.honest, self.victim)):
            assert one.ask("members")[other.name] == "up"
        self.honest.ask("update", "room", "honest", {"seen": True})
        eventually(partial(self.victim.updated, "honest"), "the update is seen")

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def offences(self) -> int:
        """How many offences the lines tell of; those of a flood are told of as a number."""
        more = [_MORE.search(line) for line in self.lines()]
        return sum(1 + (int(match[1]) if match else 0) for match in more)

    def has_told_of(self, offences: int) -> bool:
        """Whether all offences are told of, with no more lines than a flood may cost."""
        told, elapsed = self.offences(), time.monotonic() - self.began
        assert told <= offences, self.lines()
        assert len(self.lines()) <= min(offences, elapsed + 2), self.lines()
        return told == offences

    def memory(self) -> int:
        """The resident memory of the node, in bytes."""
        status = Path(f"/proc/{self.victim.process.pid}/status").read_text()
        match = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        assert match is not None
        return int(match[1]) * 1024

    def files(self) -> int:
        """How many files the node has open."""
        return len(os.listdir(f"/proc/{self.victim.process.pid}/fd"))

    @contextmanager
    def bounded(self, growth: int) -> Iterator[None]:
        """Nothing done in this block makes the node grow by more bytes, or need many files."""
        before, files = self.memory(), self.files()
        yield
        grown = self.memory() - before
        assert grown <= growth, f"the node has grown by {grown / MIB:.1f} MiB"
        assert self.files() <= files + 70, "64 handshakes, and a few that are closing"


@contextmanager
def attacked_node(cluster: str, kind: str, directory: Path) -> Iterator[AttackedNode]:
    """A node that is reached by "unix", by "tcp", or by TCP with a "secret"."""
    secret = SECRET.encode() if kind == "secret" else None
    log = directory / "victim.log"
    with Workers() as workers, open_files(NORMAL_FILES):
        if kind == "unix":
            victim = workers.start(cluster=cluster, log=log)
            (address,) = sibling_sockets(cluster)
            honest = workers.start(cluster=cluster)
        else:
            address = f"127.0.0.1:{free_port()}"
            victim = workers.start(log=log, **_settings(cluster, secret, listen=address))
            honest = workers.start(**_settings(cluster, secret, peers=address))
        victim.ask("track", "room", "mine", {})
        honest.ask("track", "room", "honest", {})
        for worker in (victim, honest):
            eventually(partial(worker.lists, "honest", "mine"), "they agree")
        began = time.monotonic()
        yield AttackedNode(workers, victim, honest, cluster, secret, address, log, began)


@contextmanager
def open_files(count: int) -> Iterator[None]:
    """This process, and those that it starts, may open so many files."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < count:
        pytest.skip(f"it needs {count} open files, and the system allows {most} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


def _settings(cluster: str, secret: bytes | None, **where: str) -> dict[str, Any]:
    protection = {} if secret is None else {"secret": secret.decode()}
    return {"cluster": cluster, "siblings": False, **protection, **where}
