"""Many nodes that start at once on the simulated bus, where each message costs time of its host."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import pytest

from adsum.bus.busevents import Emit
from adsum.replication.timing import carrier_timing
from adsum.testing import Simulation
from adsum.testing.simulator.network import VirtualClock
from adsum.testing.simulator.simulatedbusnode import SimulatedBusNode

#: Nodes that start at once, and the hosts that they share.
NODES, HOSTS = 40, 5
#: Seconds of its host that a message takes at its receiver; half of it at its publisher. Heartbeats
#: of 40 nodes with this cost are the load of 200 nodes with a 25th of it.
COST = 0.0025
#: Members up to which the usual interval of heartbeats holds, in the same proportion.
CROWD = 20
#: Virtual seconds within which all nodes are linked.
PATIENCE = 30.0
#: Messages that a link costs at both ends: four of the handshake, four frames from each end, and a
#: share of announcements, probes, heartbeats and repetitions.
MESSAGES = 32.0


class Host:
    """One thread of a host: carries out the work of its nodes in order, and takes time for it."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._waiting: deque[tuple[Callable[[], None], float]] = deque()
        self._cost = 0.0

    def work(self, action: Callable[[], None], cost: float) -> None:
        """Carry out an action behind all others."""
        self._waiting.append((action, cost))
        if len(self._waiting) == 1:
            self._clock.call_later(0.0, self._next)

    def charge(self, cost: float) -> None:
        """Let the present action take longer."""
        self._cost += cost

    def _next(self) -> None:
        action, self._cost = self._waiting[0]
        action()
        self._clock.call_later(self._cost, self._end)

    def _end(self) -> None:
        self._waiting.popleft()
        if self._waiting:
            self._next()


class BusyNode(SimulatedBusNode):
    """A node whose messages and timers wait for its host.

    Attributes:
        hosts: The hosts, which all nodes share.
        received: Messages of other nodes that it has received.
    """

    hosts: ClassVar[list[Host]]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.received = 0
        self._host = self.hosts[len(self.simulation.nodes) % HOSTS]

    def _when_awake(self, event: partial[None]) -> None:
        self.received += 1
        self._host.work(partial(super()._when_awake, event), COST)

    def _emit(self, event: Emit) -> None:
        self._host.charge(COST / 2)
        super()._emit(event)

    def _timer_fired(self) -> None:
        self._host.work(super()._timer_fired, COST)

    def _core_timer_fired(self) -> None:
        self._host.work(super()._core_timer_fired, COST / 4)


@pytest.fixture
def crowd() -> Iterator[Simulation]:
    """A cluster without nodes yet, whose nodes share a few hosts."""
    timing = replace(carrier_timing(), crowd=CROWD)
    simulation = Simulation(0, seed=1, timing=timing, checked=False, kind=BusyNode)
    BusyNode.hosts = [Host(simulation.clock) for _ in range(HOSTS)]
    yield simulation
    del BusyNode.hosts


@pytest.mark.slow
def test_crowd_on_busy_hosts_links_without_repeated_work(crowd: Simulation) -> None:
    for number in range(NODES):
        crowd.start(f"n{number}").track("room", f"n{number}")
    while not all(node.engine.shown == NODES and node.engine.joined for node in crowd.alive):
        assert crowd.clock.now < PATIENCE, [len(node.links) for node in crowd.alive]
        crowd.run(0.5)
    received = sum(node.received for node in crowd.alive if isinstance(node, BusyNode))
    assert received / (NODES * (NODES - 1) / 2) < MESSAGES
