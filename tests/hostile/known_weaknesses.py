"""Frames of a member that the fuzz leaves out, because the core cannot withstand them.

`test_limits.py` has a test for each.
"""

from adsum.replication.engine import Engine
from adsum.replication.messages import Digest

from .adversary import message_in


def replaces_the_living(victim: Engine, frame: bytes) -> bool:
    """Whether a frame tells of another life of somebody to whom there is a link.

    Two of those are taken for a proof that it lives, and of two lives one has to go.
    """
    message = message_in(frame)
    if not isinstance(message, Digest):
        return False
    linked = {member.name: member for member in victim.members() if member.linked}
    return any(
        sighting.replica.name in linked
        and sighting.replica.incarnation != linked[sighting.replica.name].incarnation
        for sighting in message.sightings
    )
