"""A run of a node on sockets: listens, finds siblings, resolves host names of peers."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from adsum.config import Settings
from adsum.errors import DialError
from adsum.replication.limits import DELTA_BUDGET, MAX_IN_FLIGHT
from adsum.signals import renew_handlers
from adsum.transport import discovery
from adsum.transport.address import TcpAddress, parse
from adsum.transport.contract import NodeIdentity
from adsum.transport.limits import TransportLimits
from adsum.transport.options import TransportOptions
from adsum.transport.sockets import SocketTransport

from .driver import logger
from .linkdriver import LinkDriver
from .newreplica import new_replica
from .observer import Observer
from .openfiles import OpenFiles
from .siblings import Siblings

#: Limits of the transport. The turn budget is below one frame of a large transfer, so one such
#: frame is received at a time and no turn of the event loop is long.
NODE_TRANSPORT_LIMITS = TransportLimits(
    turn_budget=DELTA_BUDGET // 2, send_high_water=MAX_IN_FLIGHT
)
#: Seconds between two look-ups of the host names among the peers.
RESOLVE_INTERVAL = 5.0
#: Seconds between two checks of the own socket, of siblings, signal handlers and open files.
CHECK_INTERVAL = 3.0


class SocketDriver(LinkDriver):
    """A run of a node on sockets.

    Attributes:
        sockets: The transport over sockets.

    Args:
        settings: The settings of the node.
        observers: The observers to notify; the list is read at each event.
    """

    def __init__(self, settings: Settings, observers: list[Observer]) -> None:
        cluster = settings.cluster or discovery.default_cluster()
        super().__init__(settings, cluster, new_replica(settings.name), observers)
        identity = NodeIdentity(self.cluster, *self.replica, ())
        options = TransportOptions(
            secret=settings.secret, tls=settings.tls, limits=NODE_TRANSPORT_LIMITS
        )
        self.sockets = SocketTransport(identity, self, options)
        self.transport = self.sockets
        directory = discovery.SiblingDirectory(self.cluster, settings.runtime_dir)
        self._siblings = Siblings(directory, self.sockets, self.engine)
        self._files = OpenFiles(self.replica)
        # The addresses that it listens on by its settings, with their actual ports.
        self._bound: Sequence[str] = ()

    async def open(self) -> None:
        """See `Driver`."""
        settings = self.settings
        self._bound = await self.sockets.listen_all(settings.listen)
        if settings.siblings:
            await self._siblings.listen()
            # Listening came first, so of two nodes that start together one finds the other.
            self._siblings.find()
        self._advertise()
        self._files.check_start(len(self._siblings.found) + len(settings.peers))
        self.spawn(self._check_surroundings())
        await self.find_others()
        await self.join()

    async def find_others(self) -> None:
        """Begin to dial the configured peers."""
        settings = self.settings
        hosts = [address for address in settings.peers if _has_host_name(address)]
        for address in settings.peers:
            if address not in hosts:
                self.engine.add_seed(address, lasting=True)
        for host in hosts:
            self.engine.expect_address(host)
        if hosts:
            self.spawn(self._resolve(hosts))

    def clean_up(self) -> None:
        """Remove the timers, and the directory of the cluster if no socket is left in it."""
        if self.settings.siblings:
            self._siblings.leave()
        super().clean_up()

    def charge(self, cost: int) -> None:
        """See `Driver`."""
        self.sockets.turns.charge(cost)

    def dial_refused(self, address: str) -> None:
        """See `LinkDriver`: the socket of a sibling that was killed is removed."""
        self._siblings.forget_stale(address)

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
                self._failures.log("a check of siblings and open files", error, self._now())
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
        identity = self.sockets.identity
        self.sockets.identity = replace(identity, addresses=(*own, *elsewhere))

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


def _has_host_name(address: str) -> bool:
    where = parse(address, "peers")
    return (
        isinstance(where, TcpAddress)
        and where.host.strip("0123456789.") != ""
        and ":" not in where.host
    )
