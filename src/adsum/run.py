"""One run of a node, wherever it runs: the engine decides, this carries out and tells.

`adsum.runtime` carries out over sockets, in an event loop; `adsum.testing` over a simulated
network, in virtual time.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

from adsum.replication.effects import (
    Close,
    Deliver,
    Dial,
    Effect,
    Joined,
    Notice,
    Send,
    Severity,
)
from adsum.replication.engine import Engine
from adsum.replication.entry import Transition
from adsum.replication.messages import Message, Publish
from adsum.replication.state import Replica

logger = logging.getLogger("adsum")

_LEVELS = {
    Severity.INFO: logging.INFO,
    Severity.WARNING: logging.WARNING,
    Severity.ERROR: logging.ERROR,
}


class Observer(Protocol):
    """Somebody on this node who hears of what the cluster tells."""

    def changed(self, topic: str, transitions: list[Transition]) -> None:
        """Presences on a watched topic changed."""

    def delivered(self, sender: str, message: Publish) -> None:
        """A member published a message."""

    def closed(self) -> None:
        """The node has stopped."""


class Run(ABC):
    """One run of a node. `open` it once, `close` it once.

    Args:
        cluster: The name of the cluster.
        engine: Decides what to do.
        observers: Whom to tell; the list is read at each event.
        loop: Where the observers live; None where there is no event loop.
    """

    def __init__(
        self,
        cluster: str,
        engine: Engine,
        observers: list[Observer],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        self.cluster = cluster
        self.engine = engine
        self.loop = loop
        #: Every address that others reach this node at.
        self.addresses: tuple[str, ...] = ()
        #: Messages that could not be sent to a member that does not read, or to which no link is.
        self.dropped_messages = 0
        self.frames_sent = self.frames_received = 0
        self.bytes_sent = self.bytes_received = 0
        #: Whether the process has been asked to stop, and `close` follows.
        self.stopping = False
        self._observers = observers
        self._ended = False
        # Set once this node has joined.
        self._joined = asyncio.Event()

    @property
    def replica(self) -> Replica:
        """Who the node is in this run."""
        return self.engine.replica

    @abstractmethod
    async def open(self) -> None:
        """Listen, and begin to look for the others.

        Raises:
            ListenError: An address cannot be listened on.
            ConfigurationError: The directory for the sockets of siblings is not safe.
        """

    @abstractmethod
    async def close(self) -> None:
        """Say goodbye and close everything. Observers hear of it at once."""

    @abstractmethod
    def poke(self) -> None:
        """Something changed here: see to it soon, once for many changes."""

    @abstractmethod
    def call_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Call a function after some seconds; a run that has ended by then need not call it."""

    def abandon(self) -> None:
        """Give up a run that can no longer be closed: its event loop is, or its process is dead."""
        self._end()

    def publish(self, message: Publish, to: str | None) -> int:
        """Send a message to all members, or to one; returns how many it could not be sent to."""
        missed = self.engine.publish(message, to)
        self.dropped_messages += missed
        self._settle()
        return missed

    def tell_observers(self) -> None:
        """Tell observers what changed until now."""
        for topic, transitions in self.engine.take_changes().items():
            for observer in list(self._observers):
                self._guard(observer.changed, topic, transitions)

    def tick(self) -> None:
        """Let the engine do what is due."""
        if not self._ended:
            self.engine.tick(self._now())
            self._settle()

    def _end(self) -> None:
        self._ended = True
        for observer in list(self._observers):
            self._guard(observer.closed)

    def _settle(self) -> None:
        """Do what the engine asks for, and see to it that it is called when it wants to be."""
        for effect in self.engine.take_effects():
            self._guard(self._perform, effect)
        self.tell_observers()
        if not self._ended:
            self._wake_at(self.engine.wake_at)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send(links, message):
                self._send(links, message)
            case Deliver(sender, message):
                for observer in list(self._observers):
                    self._guard(observer.delivered, sender, message)
            case Dial(address):
                self._dial(address)
            case Close(link, reason):
                self._close(link, reason)
            case Joined():
                self._joined.set()
            case Notice(severity, text):
                logger.log(_LEVELS[severity], "%s: %s", self.replica, text)

    def _guard(self, action: Callable[..., None], *arguments: Any) -> None:
        """Do one thing; if it fails, that is logged, and everything else goes on."""
        try:
            action(*arguments)
        except Exception:
            logger.exception("%s: %s failed", self.replica, getattr(action, "__name__", action))

    @abstractmethod
    def _now(self) -> float:
        """The present, in monotonic seconds."""

    @abstractmethod
    def _wake_at(self, at: float) -> None:
        """Call `tick` at a time, or earlier."""

    @abstractmethod
    def _send(self, links: tuple[int, ...], message: Message) -> None:
        """Send one message over each of these links."""

    @abstractmethod
    def _dial(self, address: str) -> None:
        """Begin to open a link to whoever listens at an address."""

    @abstractmethod
    def _close(self, link: int, reason: str) -> None:
        """Close a link, and tell the peer why."""
