"""A switch in user space: takes IP packets from one host to another, and spoils them on the way.

Each host is a file descriptor that gives and takes IPv4 packets, as that of a TUN device does. The
switch knows no other way out, so nothing that the hosts send gets anywhere else.
"""

import heapq
import os
import selectors
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from random import Random
from typing import Literal

#: Seconds for which a packet is held back that others shall overtake.
HELD_BACK = 0.03
#: Seconds between two looks at whether the switch shall stop.
_LOOK = 0.05
_LARGEST = 65535

Fate = Literal["cut", "lost", "delivered", "late", "duplicated", "held back"]


@dataclass(frozen=True, slots=True)
class Line:
    """The way of packets from one host to another.

    Attributes:
        cut: Whether nothing gets through.
        loss: The part of the packets that is lost, from 0 to 1.
        delay: Seconds that each packet takes.
        jitter: Up to so many seconds more or less, each packet on its own, so they change places.
        reorder: The part of the packets that is held back, so that later ones overtake it.
        duplicate: The part of the packets that arrives twice.
    """

    cut: bool = False
    loss: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0

    def carry(self, rng: Random, fates: Counter[Fate]) -> list[float]:
        """After how many seconds each copy of a packet arrives; none if it does not."""
        if self.cut or rng.random() < self.loss:
            fates["cut" if self.cut else "lost"] += 1
            return []
        copies = 1 + (rng.random() < self.duplicate)
        fates["delivered"] += 1
        fates["duplicated"] += copies - 1
        fates["late"] += self.delay > 0
        return [self._takes(rng, fates) for _ in range(copies)]

    def _takes(self, rng: Random, fates: Counter[Fate]) -> float:
        held_back = rng.random() < self.reorder
        fates["held back"] += held_back
        late = self.delay + rng.uniform(-self.jitter, self.jitter) + held_back * HELD_BACK
        return max(0.0, late)


class PacketSwitch:
    """Forwards packets in a thread of its own, from `start` to `stop`.

    Args:
        ports: The file descriptor of each host, non-blocking, by its address.
        seed: Of everything that is left to chance.

    Attributes:
        fates: What became of the packets, counted.
    """

    def __init__(self, ports: Mapping[IPv4Address, int], seed: int) -> None:
        self.fates: Counter[Fate] = Counter()
        self._ports = dict(ports)
        self._rng = Random(seed)
        self._lines: dict[tuple[IPv4Address, IPv4Address], Line] = {}
        # Packets under way: when they arrive, a serial number for those of one moment, where to.
        self._under_way: list[tuple[float, int, int, bytes]] = []
        self._serial = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="switch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Forward nothing more; the ports are left to whoever opened them."""
        self._stopping.set()
        self._thread.join()

    def set_line(self, source: IPv4Address, target: IPv4Address, line: Line) -> None:
        """Decide what happens from now on to packets from one host to another."""
        self._lines[source, target] = line

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for address, port in self._ports.items():
                selector.register(port, selectors.EVENT_READ, address)
            while not self._stopping.is_set():
                for key, _ in selector.select(self._until_next()):
                    self._take_in(key.fd, key.data)
                self._deliver_due()

    def _until_next(self) -> float:
        if not self._under_way:
            return _LOOK
        return min(_LOOK, max(0.0, self._under_way[0][0] - time.monotonic()))

    def _take_in(self, port: int, source: IPv4Address) -> None:
        """Take one packet of a host; IPv6, and what is for nobody here, ends here."""
        packet = os.read(port, _LARGEST)
        if packet[0] >> 4 != 4:
            return
        target = IPv4Address(packet[16:20])
        if target not in self._ports or target == source:
            return
        now = time.monotonic()
        line = self._lines.get((source, target), Line())
        for late in line.carry(self._rng, self.fates):
            self._serial += 1
            heapq.heappush(self._under_way, (now + late, self._serial, self._ports[target], packet))

    def _deliver_due(self) -> None:
        now = time.monotonic()
        while self._under_way and self._under_way[0][0] <= now:
            _, _, port, packet = heapq.heappop(self._under_way)
            try:
                os.write(port, packet)
            except OSError:
                self.fates["lost"] += 1  # The device is down, or takes no more just now.
