"""Processes with a node each that fork children, for suites about forks."""

import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

from .waiting import eventually
from .worker_processes import Process, python

SCRIPT = Path(__file__).with_name("forking_worker.py")
CHILDREN: dict[str, list[Any]] = {
    "looks and exits": ["in child", "look"],
    "leaves by SystemExit": ["unwind"],
    "runs the node": ["in child", "live", "child", 2],
    "runs the node in a pool": ["in pool", "live", "child", 2],
}


class Forking(Process):
    """A process with one node that forks children."""

    def __init__(self, loop: str, settings: dict[str, Any]) -> None:
        self.settings = settings
        super().__init__(python(SCRIPT, json.dumps(settings), loop))
        self.name, before = self.name
        self.descriptors_before: list[str] = before

    def lists(self, *keys: str) -> bool:
        """Whether exactly these keys are in the room, as the process sees it."""
        return bool(self.ask("list") == sorted(keys))

    def linked_to(self, *names: str) -> bool:
        """Whether the process has links to exactly these nodes."""
        return bool(self.ask("linked") == sorted(names))

    def has_one_link(self) -> bool:
        """Whether one socket of the node listens, and one is a link."""
        return len(self.sockets()) == 2

    def sockets(self) -> set[str]:
        """The sockets of the node."""
        added = set(self.ask("descriptors")) - set(self.descriptors_before)
        return {name for name in added if name.startswith("socket:")}


class Forkers:
    """A cluster of processes on one event loop and one transport; leaving the block kills them."""

    def __init__(self, loop: str, settings: dict[str, Any]) -> None:
        self.loop = loop
        self.settings = settings
        self.started: list[Forking] = []
        #: Children that outlive their parents.
        self.orphans: list[int] = []

    def start(self, key: str, **settings: Any) -> Forking:
        """Start a process that tracks a key."""
        self.started.append(Forking(self.loop, {**self.settings, **settings}))
        self.started[-1].ask("track", key)
        return self.started[-1]

    def pair(self) -> tuple[Forking, Forking]:
        """Start a parent of children, and another process that is linked to it."""
        parent, other = self.start("parent"), self.start("other")
        self.agree("parent", "other")
        eventually(partial(parent.linked_to, other.name), "they are linked")
        eventually(partial(other.linked_to, parent.name), "they are linked")
        eventually(parent.has_one_link, "no other connection is left")
        return parent, other

    def agree(self, *keys: str) -> None:
        """Wait until every process lists exactly these keys."""
        for process in self.started:
            eventually(partial(process.lists, *keys), "they agree")

    def end(self) -> None:
        """Kill all processes; others may be started then."""
        while self.orphans:
            os.kill(self.orphans.pop(), signal.SIGKILL)
        while self.started:
            self.started.pop().end()
