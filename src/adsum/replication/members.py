"""What a node tells of the nodes that it knows."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MemberInfo:
    """What a node knows of one node of the cluster.

    Attributes:
        name: The node's name.
        incarnation: Tells two lives of one name apart; a later life has the higher number.
        address: Where it listens, the preferred address; empty if none is known.
        status: ``self``, ``up``, ``suspect``, ``down`` or ``left``.
        linked: Whether there is a link to it; a node without one is heard of through others.
        entries: How many of its presences are known here.
        lag: How many of its changes were heard of but are not here yet.
    """

    name: str
    incarnation: int
    address: str
    status: str
    linked: bool
    entries: int
    lag: int
