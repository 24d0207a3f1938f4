"""A run of a node on the links of a transport, in one event loop.

It connects the engine, a transport and timers. A subclass makes the transport, finds addresses to
dial and listens. Everything here runs in the thread of the event loop.
"""

import asyncio
import secrets
from collections.abc import Coroutine, Iterable
from random import Random
from typing import Any

from adsum.config import Settings
from adsum.errors import ConfigurationError, DialError, DialRefusedError, HandshakeError
from adsum.quoting import printable
from adsum.replication.codec import decode, encode
from adsum.replication.engine import Engine
from adsum.replication.messages import ProtocolMessage
from adsum.replication.state import Replica
from adsum.tasks import cancel_task, start_task
from adsum.transport.contract import Link, Transport
from adsum.transport.framing import Payload
from adsum.transport.handshake import SelfDialError

from .driver import Driver, logger
from .faileddial import report_failed_dial
from .joinlog import JoinLog
from .observer import Observer

#: Times in a row that a peer closes a link for the same reason before it is logged.
REFUSALS_UNTIL_LOGGED = 3
#: Addresses with a remembered failure of the handshake, so that it is logged once. Members announce
#: addresses, so their number must be bounded; beyond it the oldest may be logged again.
MAX_REJECTIONS = 1024
#: Multiples of `join_timeout` that `start` waits for joining at most, in all.
JOIN_PATIENCES = 5
#: Steps into which `join_timeout` is divided. A step that ends late, because this process blocked
#: its event loop, counts once, so that a blocked loop is not mistaken for peers that do not answer.
JOIN_STEPS = 20


class LinkDriver(Driver):
    """A run of a node on the links of a transport; handles the events of these links.

    Attributes:
        transport: Set by the constructor of the subclass.

    Args:
        settings: The settings of the node.
        cluster: The name of the cluster.
        replica: The name and incarnation of the node in this run.
        observers: The observers to notify; the list is read at each event.
    """

    loop: asyncio.AbstractEventLoop
    transport: Transport

    def __init__(
        self, settings: Settings, cluster: str, replica: Replica, observers: list[Observer]
    ) -> None:
        loop = asyncio.get_running_loop()
        rng = Random(secrets.randbits(64))  # noqa: S311  # jitter and sampling
        engine = Engine(replica, settings.timing, rng, loop.time())
        super().__init__(cluster, engine, observers, loop)
        self.settings = settings
        self._links: dict[int, Link] = {}
        self._ids: dict[Link, int] = {}
        self._next_id = 1
        self._tasks: set[asyncio.Task[None]] = set()
        # The last logged reason why an address forms no link; the oldest is the first.
        self._rejections: dict[str, str] = {}
        # Times in a row that a peer closed a link that was dialled, by peer and reason.
        self._refusals: dict[tuple[str, str], int] = {}
        self._soon: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._join_log = JoinLog(self.cluster, engine, loop)
        # Monotonic time until which the timer does not fire, after a failure of the engine.
        self._rest_until = 0.0

    # Lifecycle.

    async def join(self) -> None:
        """Wait until this node has joined, while there is progress; see `join_timeout`.

        Call it at the end of `open`, when all addresses known at startup are seeds.
        """
        self.engine.seeds_complete()
        self.tick()
        step = self.settings.join_timeout / JOIN_STEPS
        if not step:
            return
        progress, idle = self.engine.join_progress, 0
        end = self._now() + JOIN_PATIENCES * JOIN_STEPS * step
        while idle < JOIN_STEPS and self._now() < end:
            if await self.wait_joined(step):
                return
            idle = idle + 1 if self.engine.join_progress == progress else 0
            progress = self.engine.join_progress
        self._join_log.give_up()

    async def close(self) -> None:
        """See `Driver`."""
        if self.inherited:
            return
        self.announce_stop()
        self._end()
        self._join_log.close()
        self.engine.leave(self.settings.linger)
        self._drive()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.transport.close()
        self.clean_up()

    def abandon(self) -> None:
        """See `Driver`."""
        if self.inherited:
            return
        super().abandon()
        self._join_log.close()
        for task in self._tasks:
            cancel_task(task)
        self.transport.abandon()
        self.clean_up()

    def clean_up(self) -> None:
        """Remove the timers; the last step of each end of a run."""
        for handle in (self._soon, self._timer):
            if handle is not None:
                handle.cancel()

    def dial_refused(self, address: str) -> None:
        """Nothing listens at a dialled address, for subclasses that discover addresses."""

    def _is_gone(self, link: Link) -> bool:
        """Whether nobody has the peer's address any more, as the carrier of a subclass reports."""
        return False

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task until the end of the run at most."""
        task = start_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def wake(self) -> None:
        """See `Driver`."""
        if self._soon is None:
            self._soon = self.loop.call_soon(self._on_wake)

    # LinkHandler.

    def link_opened(self, link: Link) -> None:
        """See `LinkHandler`."""
        number, self._next_id = self._next_id, self._next_id + 1
        self._links[number], self._ids[link] = link, number
        peer = link.peer
        replica = Replica(peer.name, peer.incarnation)
        if link.dialled is not None:
            self._rejections.pop(link.dialled, None)
        try:
            self.engine.link_up(
                number, replica, peer.addresses, link.dialled, self._now(), direct=link.direct
            )
        finally:
            self._drive()

    def frame_received(self, link: Link, payload: bytes) -> None:
        """See `LinkHandler`."""
        self.frames_received += 1
        self.bytes_received += len(payload)
        message = decode(payload)
        try:
            self.engine.receive(self._ids[link], message, self._now())
        finally:
            self._drive()

    def link_writable(self, link: Link, writable: bool) -> None:
        """See `LinkHandler`."""
        self._attempt(self.engine.link_writable, self._ids[link], writable, self._now())
        self._drive()

    def links_held(self, links: Iterable[Link], held: bool) -> None:
        """See `HoldHandler`."""
        numbers = [self._ids[link] for link in links if link in self._ids]
        self._attempt(self.hold, numbers, held)

    def link_closed(self, link: Link, reason: str) -> None:
        """See `LinkHandler`."""
        self._count_refusal(link, reason)
        number = self._ids.pop(link)
        del self._links[number]
        self._attempt(self.engine.link_down, number, self._now(), self._is_gone(link))
        self._drive()

    def _count_refusal(self, link: Link, reason: str) -> None:
        """Log the reason if a peer closes links repeatedly; a single close is not logged as error.

        It is normal, too, that a peer closes a redundant link and keeps another one.
        """
        logger.debug("%s: link to %s closed: %s", self.replica, link.peer.name, reason)
        if link.dialled is None or not reason.startswith("peer closed"):
            return
        others = (other for other in self._ids if other is not link)
        if any(other.peer.name == link.peer.name for other in others):
            return
        times = self._refusals.get((link.peer.name, reason), 0) + 1
        self._refusals = {(link.peer.name, reason): times}
        if times == REFUSALS_UNTIL_LOGGED:
            name = link.peer.name
            self._log.error("%s: %s: %s", self.replica, name, reason, key=name)

    # Timers of the engine. The timer is set again after every failure.

    def tick(self) -> None:
        """See `Driver`."""
        if not self._ended:
            if not self._attempt(self.engine.tick, self._now()):
                self._rest()
            self._drive()

    def _drive(self) -> None:
        if not self._attempt(super()._drive) and not self._ended:
            self._rest()
            self._wake_at(self._rest_until)
        self._join_log.check()

    def _rest(self) -> None:
        """Wait for a heartbeat: failed work is still due, and would fail again in every turn."""
        self._rest_until = self._now() + self.settings.timing.heartbeat_interval

    # Effects of the engine.

    def _now(self) -> float:
        return self.loop.time()

    def _encode(self, message: ProtocolMessage) -> Payload:
        return Payload(encode(message))

    def _send(self, links: tuple[int, ...], message: ProtocolMessage, encoded: Payload) -> None:
        self.frames_sent += len(links)
        self.bytes_sent += len(links) * len(encoded)
        self.transport.send([self._links[number] for number in links], encoded)

    def _dial(self, address: str) -> None:
        self.spawn(self._dial_address(address))

    def _close(self, link: int, reason: str) -> None:
        self._links[link].close(reason)

    def _wake_at(self, at: float) -> None:
        at = max(at, self._rest_until)
        # A timer that fires too early does no harm, so it is only ever moved forward.
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer, self._timer_at = self.loop.call_at(at, self._on_timer), at

    def _on_wake(self) -> None:
        self._soon = None
        self.tick()

    def _on_timer(self) -> None:
        self._timer = None
        self.tick()

    async def _dial_address(self, address: str) -> None:
        try:
            await self.transport.dial(address)
        except Exception as error:
            self._note_failed_dial(address, error)
            self._attempt(report_failed_dial, self.engine, address, error, self._now())
        self._drive()

    def _note_failed_dial(self, address: str, error: Exception) -> None:
        """Log the error of a dial if an operator has to know it."""
        match error:
            case SelfDialError():
                pass
            case DialRefusedError():
                self.dial_refused(address)
            case HandshakeError():
                self._log_rejection(address, str(error))
            case DialError() | ConfigurationError():
                pass
            case _:
                shown = printable(address, 320)
                self._log.crashed("%s: dialling %s failed", self.replica, shown, error=error)

    def _log_rejection(self, address: str, why: str) -> None:
        """Log the reason why a node that answers at an address forms no link, once for each."""
        if self._rejections.get(address) == why:
            return
        shown = printable(address, 320)
        reason = why.removeprefix(f"{shown}: ")
        self._log.warning("%s: no link to %s: %s", self.replica, shown, reason, key=address)
        self._rejections.pop(address, None)
        self._rejections[address] = why
        if len(self._rejections) > MAX_REJECTIONS:
            del self._rejections[next(iter(self._rejections))]
