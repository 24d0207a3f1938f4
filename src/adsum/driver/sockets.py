"""A run of a node on sockets, in one event loop: connects the engine, the transport and timers.

Everything here runs in the thread of that loop.
"""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from adsum.config import Settings
from adsum.driver.driver import Driver, logger
from adsum.driver.joinlog import JoinLog
from adsum.driver.observer import Observer
from adsum.driver.openfiles import OpenFiles
from adsum.driver.siblings import Siblings
from adsum.errors import (
    ConfigurationError,
    DialError,
    DialRefusedError,
    HandshakeError,
)
from adsum.quoting import printable
from adsum.replication.codec import decode, encode
from adsum.replication.engine import Engine
from adsum.replication.limits import DELTA_BUDGET, MAX_IN_FLIGHT
from adsum.replication.messages import ProtocolMessage
from adsum.replication.state import Replica
from adsum.signals import renew_handlers
from adsum.tasks import cancel_task, start_task
from adsum.transport import discovery
from adsum.transport.address import TcpAddress, parse
from adsum.transport.base import Link, NodeIdentity
from adsum.transport.framing import Payload
from adsum.transport.handshake import SelfDialError
from adsum.transport.limits import TransportLimits
from adsum.transport.sockets import SocketTransport
from adsum.values.limits import MAX_NODE_NAME

#: Limits of the transport. The turn budget is below one frame of a large transfer, so one such
#: frame is received at a time and no turn of the event loop is long.
LIMITS = TransportLimits(turn_budget=DELTA_BUDGET // 2, send_high_water=MAX_IN_FLIGHT)
#: Times in a row that a peer closes a link for the same reason before it is logged.
REFUSALS_UNTIL_LOGGED = 3
#: Addresses with a remembered failure of the handshake, so that it is logged once. Members announce
#: addresses, so their number must be bounded; beyond it the oldest may be logged again.
MAX_COMPLAINTS = 1024
#: Seconds between two look-ups of the host names among the peers.
RESOLVE_INTERVAL = 5.0
#: Seconds between two checks of the own socket, of siblings, signal handlers and open files.
CHECK_INTERVAL = 3.0
#: Random bytes in an automatic name. With 8, a million nodes collide with a probability of 3e-8.
NAME_ENTROPY = 8
#: Multiples of `join_timeout` that `start` waits for joining at most, in all.
JOIN_PATIENCES = 5
#: Steps into which `join_timeout` is divided. A step that ends late, because this process blocked
#: its event loop, counts once, so that a blocked loop is not mistaken for peers that do not answer.
JOIN_STEPS = 20


class SocketDriver(Driver):
    """A run of a node on sockets.

    Args:
        settings: The settings of the node.
        observers: The observers to notify; the list is read at each event.
    """

    loop: asyncio.AbstractEventLoop

    def __init__(self, settings: Settings, observers: list[Observer]) -> None:
        loop = asyncio.get_running_loop()
        replica = Replica(settings.name or _unique_name(), _incarnation())
        rng = Random(secrets.randbits(64))  # noqa: S311  # jitter and sampling
        engine = Engine(replica, settings.timing, rng, loop.time())
        super().__init__(settings.cluster or discovery.default_cluster(), engine, observers, loop)
        self.settings = settings
        identity = NodeIdentity(self.cluster, *self.replica, ())
        self.transport = SocketTransport(
            identity, self, secret=settings.secret, tls=settings.tls, limits=LIMITS
        )
        directory = discovery.SiblingDirectory(self.cluster, settings.runtime_dir)
        self._siblings = Siblings(directory, self.transport, engine)
        self._files = OpenFiles(replica)
        # The addresses that it listens on by its settings, with their actual ports.
        self._bound: Sequence[str] = ()
        self._links: dict[int, Link] = {}
        self._ids: dict[Link, int] = {}
        self._next_id = 1
        self._tasks: set[asyncio.Task[None]] = set()
        # The last logged reason why an address forms no link; the oldest is the first.
        self._complaints: dict[str, str] = {}
        # Times in a row that a peer closed a link that was dialled, by peer and reason.
        self._refusals: dict[tuple[str, str], int] = {}
        self._soon: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._join_log = JoinLog(self.cluster, engine, loop)
        # Monotonic time until which the timer does not fire, after a failure of the engine.
        self._rest_until = 0.0

    async def open(self) -> None:
        """See `Driver`."""
        settings = self.settings
        self._bound = await self.transport.listen_all(settings.listen)
        if settings.siblings:
            await self._siblings.listen()
            # Listening came first, so of two nodes that start together one finds the other.
            self._siblings.find()
        self._advertise()
        self._files.check_start(len(self._siblings.found) + len(settings.peers))
        self._spawn(self._check_surroundings())
        hosts = [address for address in settings.peers if _has_host_name(address)]
        for address in settings.peers:
            if address not in hosts:
                self.engine.add_seed(address, lasting=True)
        for host in hosts:
            self.engine.expect_address(host)
        if hosts:
            self._spawn(self._resolve(hosts))
        self.engine.seeds_complete()
        self.tick()
        await self._join(self.settings.join_timeout / JOIN_STEPS)

    async def close(self) -> None:
        """See `Driver`."""
        if self.inherited:
            return
        self._end()
        self._join_log.close()
        self.engine.leave(self.settings.linger)
        self._drive()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.transport.close()
        self._clean_up()

    def _clean_up(self) -> None:
        """Remove the timers, and the directory of the cluster if no socket is left in it."""
        if self.settings.siblings:
            self._siblings.leave()
        for handle in (self._soon, self._timer):
            if handle is not None:
                handle.cancel()

    async def _check_surroundings(self) -> None:
        """Check socket, siblings, signal handlers and open files every `CHECK_INTERVAL` seconds."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            try:
                renew_handlers()
                if self.settings.siblings:
                    await self._check_siblings()
                self._files.check(self._now())
            except Exception as error:
                self._log_failure("a check of siblings and open files", error)
            self._drive()

    async def _check_siblings(self) -> None:
        """Renew the own socket for siblings if it is gone, and find new siblings."""
        if await self._siblings.renew():
            self._advertise()
        self._siblings.find()

    def _advertise(self) -> None:
        """Announce the current addresses of this node in handshakes from now on."""
        own = [self._siblings.address] if self._siblings.address else []
        self.addresses = (*self._bound, *own)
        elsewhere = self.settings.advertise or self._bound
        identity = self.transport.identity
        self.transport.identity = replace(identity, addresses=(*own, *elsewhere))

    async def _join(self, step: float) -> None:
        """Wait until this node has joined, while there is progress."""
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

    def abandon(self) -> None:
        """See `Driver`."""
        if self.inherited:
            return
        super().abandon()
        self._join_log.close()
        for task in self._tasks:
            cancel_task(task)
        self.transport.abandon()
        self._clean_up()

    def wake(self) -> None:
        """See `Driver`."""
        if self._soon is None:
            self._soon = self.loop.call_soon(self._on_wake)

    def call_later(self, seconds: float, action: Callable[[], None]) -> None:
        """See `Driver`."""
        self.loop.call_later(seconds, action)

    def charge(self, cost: int) -> None:
        """See `Driver`."""
        self.transport.turns.charge(cost)

    # LinkHandler.

    def link_opened(self, link: Link) -> None:
        """See `LinkHandler`."""
        number, self._next_id = self._next_id, self._next_id + 1
        self._links[number], self._ids[link] = link, number
        peer = link.peer
        replica = Replica(peer.name, peer.incarnation)
        if link.dialled is not None:
            self._complaints.pop(link.dialled, None)
        try:
            self.engine.link_up(number, replica, peer.addresses, link.dialled, self._now())
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

    def link_closed(self, link: Link, reason: str) -> None:
        """See `LinkHandler`."""
        self._count_refusal(link, reason)
        number = self._ids.pop(link)
        del self._links[number]
        self._attempt(self.engine.link_down, number, self._now())
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
        for number in links:
            self._links[number].send(encoded)

    def _dial(self, address: str) -> None:
        self._spawn(self._reach(address))

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

    async def _reach(self, address: str) -> None:
        shown = printable(address, 320)
        try:
            await self.transport.dial(address)
        except SelfDialError:
            self._attempt(self.engine.dialled_self, address)
        except DialRefusedError:
            self._siblings.forget_stale(address)
            self._attempt(self.engine.dial_failed, address, True, self._now())
        except HandshakeError as error:
            self._complain(address, str(error))
            self._attempt(self.engine.dial_rejected, address, self._now())
        except (DialError, ConfigurationError):
            self._attempt(self.engine.dial_failed, address, False, self._now())
        except Exception as error:
            self._log.crashed("%s: dialling %s failed", self.replica, shown, error=error)
            self._attempt(self.engine.dial_failed, address, False, self._now())
        self._drive()

    def _complain(self, address: str, why: str) -> None:
        """Log the reason why a node that answers at an address forms no link, once for each."""
        if self._complaints.get(address) == why:
            return
        shown = printable(address, 320)
        reason = why.removeprefix(f"{shown}: ")
        self._log.warning("%s: no link to %s: %s", self.replica, shown, reason, key=address)
        self._complaints.pop(address, None)
        self._complaints[address] = why
        if len(self._complaints) > MAX_COMPLAINTS:
            del self._complaints[next(iter(self._complaints))]

    async def _resolve(self, addresses: list[str]) -> None:
        """Look up host names periodically: all their addresses are peers, and they may change."""
        known: dict[str, list[str]] = {}
        while True:
            await asyncio.gather(*(self._look_up(address, known) for address in addresses))
            await asyncio.sleep(RESOLVE_INTERVAL)

    async def _look_up(self, address: str, known: dict[str, list[str]]) -> None:
        """Look up one host name; joining no longer waits for it, even if it cannot be resolved."""
        try:
            found = await discovery.resolve(address)
        except DialError as error:
            logger.debug("%s: %s", self.replica, error)
        else:
            self._attempt(self._replace_seeds, known.get(address, []), found)
            known[address] = found
        self.engine.address_done(address)
        self.tick()

    def _replace_seeds(self, known: list[str], found: list[str]) -> None:
        for gone in set(known).difference(found, self.settings.peers):
            self.engine.remove_seed(gone)
        for seed in found:
            self.engine.add_seed(seed, lasting=False)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = start_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _has_host_name(address: str) -> bool:
    where = parse(address, "peers")
    return (
        isinstance(where, TcpAddress)
        and where.host.strip("0123456789.") != ""
        and ":" not in where.host
    )


def _unique_name() -> str:
    """A name for one run of one process, drawn at start, so that workers forked later differ.

    In containers host names and process ids repeat, so the random part alone must be unique.
    """
    suffix = f"-{os.getpid()}-{secrets.token_hex(NAME_ENTROPY)}"
    return socket.gethostname()[: MAX_NODE_NAME - len(suffix)] + suffix


def _incarnation() -> int:
    """A new incarnation: higher than earlier ones, and different for starts in one millisecond."""
    return (time.time_ns() // 1_000_000 << 20) | secrets.randbits(20)
