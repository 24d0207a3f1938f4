"""Bounds inbound connections that have not proved themselves, and chooses the one to drop.

A stranger can open connections and send nothing. If new connections beyond a limit were refused, a
few silent strangers would lock every node out. So the newest connection is accepted, and an older
one is dropped in its place:

* The dropped connection belongs to the address that holds the most, so no address loses a
  connection while it holds less than its share: the limit divided by the number of addresses.
* Of the connections of that address, the one in the middle by age is dropped. The newer half keeps
  out silent strangers: a handshake takes milliseconds, so an honest connection is proved long
  before enough newer ones of its own address push it to the middle, and the silent one is dropped.
  The older half keeps its places until it has proved itself or timed out, however many connections
  follow. So slow handshakes are not starved either: if many honest nodes behind one address each
  need longer than others take to arrive, half the limit succeeds at a time. If the oldest were
  dropped, new connections would replace each other, and none would succeed.

All members on one host count as one address, and so do all hosts behind one NAT or load balancer.
An IPv6 address counts as its /64, because a host chooses the rest of its address itself.

Cost: one step for each connection, and one for each of the others when one is dropped.
"""

import ipaddress
from collections import Counter
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

#: Bits of an IPv6 address that a host does not choose itself.
_IPV6_NETWORK = 64


class Unproven(Generic[T]):
    """The unproven connections of one kind, TCP or Unix.

    Args:
        most: The number of connections that may be unproven at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # The address of each connection; the oldest connection is the first.
        self._addresses: dict[T, Hashable] = {}
        self._counts: Counter[Hashable] = Counter()

    def __len__(self) -> int:
        return len(self._addresses)

    def add(self, connection: T, address: Hashable) -> T | None:
        """Count a new connection.

        Args:
            connection: The newest one.
            address: Its source; connections of equal addresses share one quota.

        Returns:
            The connection to drop, which is no longer counted, or None. It is the new connection
            only if none are allowed at all.
        """
        self._addresses[connection] = address
        self._counts[address] += 1
        if len(self._addresses) <= self._most:
            return None
        victim = self._middle_of_largest()
        self.discard(victim)
        return victim

    def discard(self, connection: T) -> None:
        """Stop counting a connection that has proved itself or is gone. Idempotent."""
        if connection not in self._addresses:
            return
        address = self._addresses.pop(connection)
        self._counts[address] -= 1
        if not self._counts[address]:
            del self._counts[address]

    def _middle_of_largest(self) -> T:
        """The connection in the middle by age, of the addresses that hold the most."""
        largest = max(self._counts.values())
        candidates = [
            connection
            for connection, address in self._addresses.items()
            if self._counts[address] == largest
        ]
        return candidates[(len(candidates) - 1) // 2]


def network_of(ip: str) -> Hashable:
    """The address for which a TCP connection from `ip` is counted: for IPv6, its /64."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return ip
    if address.version == 4:
        return address
    return int(address) >> (128 - _IPV6_NETWORK)
