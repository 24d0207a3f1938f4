"""One connection to one server of the bus, from its opening to its loss: queue, writer, and end.

Publishes, subscriptions and their ends pass one queue, so the server sees them in the order of the
calls. A task writes them in batches; while the server accepts nothing, the queue grows up to its
bound, and further publishes are dropped. A session is used once: after its end, `BusReconnector`
opens another one.
"""

import asyncio
import contextlib
import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol

from adsum.forks import PrivateDescriptor
from adsum.tasks import cancel_task, resolve, start_task

#: Bytes of queued messages at most; further ones are dropped.
MAX_BACKLOG = 8 * 1024 * 1024
#: Queued messages at most, so that small ones cost bounded memory too.
MAX_QUEUED = 50_000
#: Bytes and commands of one batch.
BATCH_BYTES, BATCH_COMMANDS = 64 * 1024, 256
#: Probes without a refusal that are remembered.
MAX_PROBES = 1024
#: Seconds between two pings, and pings without an answer after which the connection is lost. Pings
#: are counted, not seconds: a loop that was blocked has sent none meanwhile.
PING_INTERVAL, MAX_UNANSWERED = 1.0, 3
#: Seconds that `close` waits for the backlog.
FLUSH_TIMEOUT = 2.0


class Verb(Enum):
    """The kinds of commands."""

    PUBLISH = auto()
    SUBSCRIBE = auto()
    UNSUBSCRIBE = auto()


class BusCommand(NamedTuple):
    """A queued command."""

    verb: Verb
    subject: str
    data: bytes = b""
    probe: object | None = None

    @property
    def size(self) -> int:
        """Bytes that count for the backlog."""
        return len(self.subject) + len(self.data)


class SessionEvents(Protocol):
    """Receives the events of a session."""

    def received(self, data: bytes) -> None:
        """Receive a message."""

    def refused(self, probe: object) -> None:
        """Receive a refusal."""

    def dropped(self, reason: str) -> None:
        """Learn of a command that the library or the server refused."""


class BusSession(ABC):
    """One connection to one server.

    Args:
        events: Receives its events.
    """

    def __init__(self, events: SessionEvents) -> None:
        self.events = events
        #: The reason of the end, once the connection is lost.
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._queue: deque[BusCommand] = deque()
        self._queued_bytes = 0
        # Set while commands are queued.
        self._filled = asyncio.Event()
        # Set while nothing is queued and no batch is being written.
        self._idle = asyncio.Event()
        self._idle.set()
        self._tasks: list[asyncio.Task[None]] = []
        self._private: list[PrivateDescriptor] = []

    @abstractmethod
    async def open(self, subjects: Sequence[str]) -> None:
        """Connect and subscribe; the server has the subscriptions afterwards.

        Raises:
            Exception: Any of the library; the caller abandons the session.
        """

    @abstractmethod
    async def subscribe_now(self, subjects: Sequence[str]) -> None:
        """Subscribe, and wait until the server has the subscriptions."""

    @property
    @abstractmethod
    def unwritten(self) -> int:
        """Bytes taken from the queue that have not reached the socket."""

    @abstractmethod
    async def _write(self, batch: Sequence[BusCommand]) -> None:
        """Pass a batch on, in order; wait while the connection accepts no more."""

    @abstractmethod
    async def _finish(self) -> None:
        """Flush and disconnect in an orderly way; the caller bounds the time."""

    @abstractmethod
    def _transports(self) -> Sequence[asyncio.BaseTransport]:
        """The transports to the server."""

    @property
    def backlog(self) -> int:
        """Bytes that are queued or have not reached the socket."""
        return self._queued_bytes + self.unwritten

    @property
    def queued(self) -> int:
        """Queued commands."""
        return len(self._queue)

    def publish(self, subject: str, data: bytes, probe: object | None) -> bool:
        """Queue a message, and return whether the bound allowed it."""
        if self.backlog + len(data) > MAX_BACKLOG or len(self._queue) >= MAX_QUEUED:
            return False
        self._push(BusCommand(Verb.PUBLISH, subject, data, probe))
        return True

    def subscribe(self, subject: str) -> None:
        """Queue a subscription."""
        self._push(BusCommand(Verb.SUBSCRIBE, subject))

    def unsubscribe(self, subject: str) -> None:
        """Queue the end of a subscription."""
        self._push(BusCommand(Verb.UNSUBSCRIBE, subject))

    def end(self, reason: object) -> None:
        """Note the loss of the connection; only the first reason counts."""
        resolve(self.ended, str(reason) or type(reason).__name__)

    async def close(self) -> None:
        """Write the backlog within `FLUSH_TIMEOUT`, then disconnect."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(FLUSH_TIMEOUT):
                await self._idle.wait()
                await self._finish()
        self.abandon()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=FLUSH_TIMEOUT)

    def abandon(self) -> None:
        """Disconnect at once; the loop may be closed."""
        for descriptor in self._private:
            descriptor.release()
        for task in self._tasks:
            cancel_task(task)
        for transport in self._transports():
            _hang_up(transport, self._loop)

    def make_private(self) -> None:
        """Let no forked child hold the connection open, which would hide the end of this process.

        Call it once the session is open.
        """
        for transport in self._transports():
            sock = transport.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                self._private.append(PrivateDescriptor(sock.fileno()))

    def _start(self, *works: Coroutine[Any, Any, None]) -> None:
        """Start the writer, and further tasks; the session ends when one of them fails."""
        for work in (self._write_queue(), *works):
            task = start_task(work)
            self._tasks.append(task)
            task.add_done_callback(self._task_done)

    def _task_done(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.end(error)

    def _push(self, command: BusCommand) -> None:
        self._queue.append(command)
        self._queued_bytes += command.size
        self._filled.set()
        self._idle.clear()

    async def _write_queue(self) -> None:
        # nats-py swallows a cancellation inside of `publish`, so the end is checked as well.
        while not self.ended.done():
            if not self._queue:
                self._filled.clear()
                self._idle.set()
                await self._filled.wait()
            await self._write(self._take())
            await asyncio.sleep(0)

    def _take(self) -> list[BusCommand]:
        batch, size = list[BusCommand](), 0
        while self._queue and len(batch) < BATCH_COMMANDS and size < BATCH_BYTES:
            command = self._queue.popleft()
            size += command.size
            batch.append(command)
        self._queued_bytes -= size
        return batch


async def every_ping(tick: Callable[[], None]) -> None:
    """Call a function every `PING_INTERVAL`."""
    while True:
        await asyncio.sleep(PING_INTERVAL)
        tick()


def _hang_up(transport: asyncio.BaseTransport, loop: asyncio.AbstractEventLoop) -> None:
    """End a connection at once, without the event loop if that is closed."""
    if not loop.is_closed():
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()
        return
    sock = transport.get_extra_info("socket")
    if sock is not None:
        # The peer was faster, or the loop is uvloop's, which closes its sockets itself.
        with contextlib.suppress(OSError, TypeError):
            sock.shutdown(socket.SHUT_RDWR)
