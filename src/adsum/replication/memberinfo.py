"""Information about the nodes of a cluster, as one of them lists it."""

from collections.abc import Iterator
from dataclasses import dataclass

from .departures import Departures
from .exchange import Exchange
from .links import Links
from .liveness import Liveness
from .state import Replica


@dataclass(frozen=True, slots=True)
class MemberInfo:
    """One node of the cluster, as the listing node knows it.

    Attributes:
        name: The node's name.
        incarnation: Distinguishes restarts under one name; a later start has the higher number.
        address: The preferred address at which it listens; empty if none is known.
        status: ``self``, ``up``, ``suspect``, ``down`` or ``left``.
        linked: Whether there is a link to it; the others are known through peers.
        entries: The number of its presences known here.
        lag: The number of its changes, by the version it or its peers state, not received here yet.
    """

    name: str
    incarnation: int
    address: str
    status: str
    linked: bool
    entries: int
    lag: int


def list_members(
    liveness: Liveness, departures: Departures, exchange: Exchange, links: Links
) -> list[MemberInfo]:
    """The nodes that one node knows, itself included, sorted by name and incarnation."""
    own = exchange.own.slice
    listed = [MemberInfo(*own.replica, "", "self", True, len(own.entries), 0)]
    listed += _members(liveness, exchange, links)
    listed += _lingering(departures, exchange)
    return sorted(listed, key=lambda info: (info.name, info.incarnation))


def _members(liveness: Liveness, exchange: Exchange, links: Links) -> Iterator[MemberInfo]:
    for name, member in liveness.members.items():
        entries, lag = _entries_and_lag(exchange, member.replica, member.version)
        address = member.addresses[0] if member.addresses else ""
        status, linked = member.status.value, name in links.names
        yield MemberInfo(*member.replica, address, status, linked, entries, lag)


def _lingering(departures: Departures, exchange: Exchange) -> Iterator[MemberInfo]:
    for departure in departures.lingering():
        entries, lag = _entries_and_lag(exchange, departure.replica, departure.version)
        yield MemberInfo(*departure.replica, "", "left", False, entries, lag)


def _entries_and_lag(exchange: Exchange, replica: Replica, version: int) -> tuple[int, int]:
    """The number of entries held of a replica, and how far they are behind a version."""
    held = exchange.of(replica)
    entries, horizon = (len(held.slice.entries), held.slice.horizon) if held is not None else (0, 0)
    return entries, max(0, version - horizon)
