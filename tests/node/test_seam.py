"""The seam fits drivers on other transports: here on a bus, with virtual links and group frames."""

import asyncio
import threading
from collections.abc import Iterable
from functools import partial

import pytest

import adsum
from adsum.config import Settings
from adsum.driver.linkdriver import LinkDriver
from adsum.driver.newreplica import new_replica
from adsum.driver.observer import Observer
from adsum.errors import DialRefusedError
from adsum.transport.contract import Link, LinkHandler, NodeIdentity
from tests.support.waiting import until


class Bus:
    """A bus in one process: each attached transport receives the frames published to it."""

    def __init__(self) -> None:
        self.transports: dict[str, BusTransport] = {}
        #: Published frames, each once, however many transports receive it, with their receivers.
        self.published: list[tuple[bytes, list[str]]] = []

    def publish(self, sender: str, receivers: list[str], payload: bytes) -> None:
        self.published.append((payload, receivers))
        for name in receivers:
            asyncio.get_running_loop().call_soon(self.deliver, sender, name, payload)

    def deliver(self, sender: str, name: str, payload: bytes) -> None:
        transport = self.transports.get(name)
        if transport is not None and sender in transport.links:
            transport.handler.frame_received(transport.links[sender], payload)


class BusLink:
    """A virtual link: the name of the peer on the bus."""

    direct = False

    def __init__(self, transport: "BusTransport", peer: NodeIdentity, dialled: str | None) -> None:
        self.transport = transport
        self.peer = peer
        self.dialled = dialled

    def send(self, payload: bytes) -> None:
        self.transport.send([self], payload)

    def close(self, reason: str) -> None:
        asyncio.get_running_loop().call_soon(self.transport.end, self.peer.name, reason)


class BusTransport:
    """A transport on a bus; see `Transport`."""

    def __init__(self, bus: Bus, identity: NodeIdentity, handler: LinkHandler) -> None:
        self.bus = bus
        self.identity = identity
        self.handler = handler
        self.links: dict[str, BusLink] = {}

    async def listen(self, address: str) -> str:
        self.bus.transports[address] = self
        return address

    async def dial(self, address: str) -> None:
        peer = self.bus.transports.get(address)
        if peer is None:
            raise DialRefusedError(f"{address}: nothing listens there")
        peer.open(self.identity, None)
        self.open(peer.identity, address)

    def open(self, peer: NodeIdentity, dialled: str | None) -> None:
        self.links[peer.name] = BusLink(self, peer, dialled)
        self.handler.link_opened(self.links[peer.name])

    def send(self, links: Iterable[Link], payload: bytes) -> None:
        self.bus.publish(self.identity.name, [link.peer.name for link in links], payload)

    def end(self, name: str, reason: str) -> None:
        link = self.links.pop(name, None)
        if link is not None:
            self.handler.link_closed(link, reason)
            other = self.bus.transports.get(name)
            if other is not None:
                other.end(self.identity.name, f"peer closed: {reason}")

    async def close(self) -> None:
        self.abandon()

    def abandon(self) -> None:
        self.bus.transports.pop(self.identity.name, None)
        for name in list(self.links):
            self.end(name, "closed")


class BusDriver(LinkDriver):
    """A run of a node on a bus."""

    def __init__(self, bus: Bus, settings: Settings, observers: list[Observer]) -> None:
        super().__init__(settings, "bus", new_replica(settings.name), observers)
        self.bus = bus
        self.transport = BusTransport(bus, NodeIdentity("bus", *self.replica, ()), self)

    async def open(self) -> None:
        for address in self.bus.transports:
            self.engine.add_seed(address, lasting=True)
        self.addresses = (await self.transport.listen(self.replica.name),)
        await self.join()


def hold(presence: adsum.Presence, held: bool) -> None:
    """Hold all links of a node on a bus, or let their silence count again."""
    driver = presence.node.driver
    assert isinstance(driver, BusDriver)
    assert isinstance(driver.transport, BusTransport)
    driver.links_held(driver.transport.links.values(), held)


def on(bus: Bus, name: str) -> adsum.Presence:
    node = adsum.Node(
        name=name, heartbeat_interval=0.05, down_after=0.2, link_grace=0.1, coalesce_interval=0.02
    )
    node.use_driver(partial(BusDriver, bus))
    return adsum.Presence(node)


def test_nodes_on_a_bus_join_and_publish_one_frame_for_all_members() -> None:
    async def main() -> None:
        bus = Bus()
        presences = [on(bus, f"n{number}") for number in range(6)]
        first = presences[0]
        for presence in presences:
            await presence.node.start()
            assert presence.node.joined
        await until(lambda: all(one.node.stats()["links"] == 5 for one in presences))
        first.track("room:1", "ann", owner=None)
        await until(lambda: all(presence.count("room:1") for presence in presences))
        [receivers] = [names for frame, names in bus.published if b"room:1" in frame]
        assert sorted(receivers) == ["n1", "n2", "n3", "n4", "n5"]
        for presence in presences:
            await presence.node.stop()

    asyncio.run(main())


@pytest.mark.parametrize("held", [True, False], ids=["held", "not held"])
def test_lost_bus_makes_members_leave_unless_liveness_is_held(held: bool) -> None:
    async def main() -> None:
        bus = Bus()
        one, two = on(bus, "one"), on(bus, "two")
        async with one.node, two.node:
            two.track("room:1", "bob", owner=None)
            await until(lambda: one.count("room:1") == 1)
            watch, published = one.watch("room:1"), adsum.PubSub(one.node)
            await anext(watch)
            publish, bus.publish = bus.publish, lambda *_: None  # type: ignore[method-assign]
            hold(one, held)
            hold(two, held)
            one.track("room:1", "ann", owner=None)
            assert list((await anext(watch)).joins) == ["ann"]  # changes of this node go on
            for _ in range(20):
                await published.publish("news", {})
                await asyncio.sleep(0.05)  # together more than `down_after`
            left = one.count("room:1") == 1
            bus.publish = publish  # type: ignore[method-assign]
            hold(one, False)
            hold(two, False)
            assert left is not held
            await until(lambda: one.count("room:1") == 2)

    asyncio.run(main())


def test_attach_beside_a_run_is_refused() -> None:
    async def main() -> None:
        async with on(Bus(), "one").node as node:
            with pytest.raises(adsum.UsageError, match="runs already"):
                node.attach()

    asyncio.run(main())


def test_other_threads_hand_their_calls_to_the_loop_of_the_driver() -> None:
    async def main() -> None:
        presence = on(Bus(), "one")
        async with presence.node:

            def work() -> None:
                running = presence.node.event_loop
                assert running is not None
                running[0].call_soon_threadsafe(
                    partial(presence.track, "room:1", "ann", owner=None)
                )

            thread = threading.Thread(target=work)
            thread.start()
            await until(lambda: presence.count("room:1") == 1)
            thread.join()

    asyncio.run(main())
