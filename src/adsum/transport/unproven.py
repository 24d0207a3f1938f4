"""Inbound connections that have not proved themselves, and the one to drop when there are too many.

A stranger can open connections and say nothing. If the newest were refused beyond a limit, a few
silent strangers would keep everybody out. So the newest is accepted, and an older connection is
dropped for it:

* The drop falls on the address that holds the most connections, so no address loses a connection
  while it holds less than its share: the limit divided by the number of addresses.
* Among the connections of that address it falls on the one in the middle, by age. The newer half
  keeps out silent strangers: a handshake takes milliseconds, so an honest connection is proved long
  before as many newer ones of its own address push it to the middle, and the silent one is dropped.
  The older half keeps its places until it has proved itself or its time is over, however many
  connections follow. So slow handshakes are not starved either: of a crowd of honest nodes behind
  one address, each of which needs longer than it takes others to arrive, half a limit succeeds at a
  time. If the oldest were dropped, newcomers would replace one another, and none would succeed.

The members of one host are one address, and so are the hosts behind one NAT or balancer. An
address of IPv6 stands for its /64, because a host chooses the rest of its address itself.

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
        most: How many may exist at a time.
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
            address: Where it comes from; connections of equal addresses have one share.

        Returns:
            The connection to drop, which is not counted any more. It is the new one only if none
            are allowed at all.
        """
        self._addresses[connection] = address
        self._counts[address] += 1
        if len(self._addresses) <= self._most:
            return None
        victim = self._middle_of_largest()
        self.discard(victim)
        return victim

    def discard(self, connection: T) -> None:
        """A connection has proved itself or is gone. Idempotent."""
        if connection not in self._addresses:
            return
        address = self._addresses.pop(connection)
        self._counts[address] -= 1
        if not self._counts[address]:
            del self._counts[address]

    def _middle_of_largest(self) -> T:
        """Of the addresses that hold the most, the connection in the middle by age."""
        largest = max(self._counts.values())
        candidates = [
            connection
            for connection, address in self._addresses.items()
            if self._counts[address] == largest
        ]
        return candidates[(len(candidates) - 1) // 2]


def network_of(ip: str) -> Hashable:
    """The address that a TCP connection from `ip` counts for."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return ip
    if address.version == 4:
        return address
    return int(address) >> (128 - _IPV6_NETWORK)
