"""Information about the nodes of a cluster, as one of them lists it."""

from dataclasses import dataclass


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
