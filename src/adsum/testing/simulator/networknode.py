"""A simulated node on the simulated network, whose address is its place."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from adsum.replication.messages import ProtocolMessage

from .network import DIAL_TIMEOUT, Endpoint, Network, SimulatedFrame
from .simulatednode import SimulatedNode


class SimulatedNetworkNode(SimulatedNode):
    """A run of a node whose links are connections, as over TCP."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.addresses = (self.place,)

    @property
    def medium(self) -> Network:
        """See `SimulatedNode`."""
        return self.simulation.network

    def know(self, places: Sequence[str]) -> None:
        """See `SimulatedNode`: each place is a lasting seed."""
        for place in places:
            self.engine.add_seed(place, lasting=True)

    def linked_to(self, peer: SimulatedNode) -> bool:
        """See `SimulatedNode`."""
        passes = self.medium.passes
        works = passes(self.place, peer.place) and passes(peer.place, self.place)
        return works and any(link in peer.links for link in self.links)

    # Endpoint.

    def frame_arrived(self, link: int, frame: SimulatedFrame) -> None:
        """See `Endpoint`."""
        self._when_awake(partial(self._receive, link, frame))

    def link_broke(self, link: int) -> None:
        """See `Endpoint`."""
        self.links.discard(link)
        self._when_awake(partial(self._call, self.engine.link_down, link))

    def writable_changed(self, link: int, writable: bool) -> None:
        """See `Endpoint`."""
        self._when_awake(partial(self._call, self.engine.link_writable, link, writable))

    def link_opened(self, link: int, peer: Endpoint, dialled: str | None) -> None:
        """See `Endpoint`."""
        self.links.add(link)
        args = (link, peer.replica, (peer.place,), dialled)
        self._when_awake(partial(self._call, self.engine.link_up, *args))

    def dial_failed(self, address: str, refused: bool) -> None:
        """See `Endpoint`."""
        self._when_awake(partial(self._call, self.engine.dial_failed, address, refused))

    # Effects of the engine.

    def _hang_up(self) -> None:
        for link in sorted(self.links):
            self.medium.close(link, self)

    def _vanish(self) -> None:
        for link in sorted(self.links):
            self.medium.sever(link)

    def _send(
        self, links: tuple[int, ...], message: ProtocolMessage, encoded: SimulatedFrame
    ) -> None:
        self._count_sent(links, encoded)
        for link in links:
            peer = self.medium.send(link, self, encoded)
            if peer is not None:
                self.simulation.trace_message(message, self.place, peer)

    def _close(self, link: int, reason: str) -> None:
        self.links.discard(link)
        self.simulation.trace("{} closes link {}: {}", self.place, link, reason)
        self.medium.close(link, self)

    def _dial(self, address: str) -> None:
        delay = self.medium.delay(self.place, address)
        self.simulation.clock.call_later(delay, partial(self._answer, address))

    def _answer(self, address: str) -> None:
        """Answer a dial at the far end: refused without a process, no answer, or a link."""
        network, clock = self.medium, self.simulation.clock
        peer = self.simulation.nodes.get(address)
        reachable = network.passes(self.place, address) and network.passes(address, self.place)
        if not self.running:
            return
        if not reachable or (peer is not None and peer.running and peer.paused):
            clock.call_later(DIAL_TIMEOUT, partial(self.dial_failed, address, False))
        elif not isinstance(peer, SimulatedNetworkNode) or not peer.running:
            delay = network.delay(address, self.place)
            clock.call_later(delay, partial(self.dial_failed, address, True))
        elif peer is self:
            self.engine.dialled_self(address)
        else:
            network.open(self, peer, address)
