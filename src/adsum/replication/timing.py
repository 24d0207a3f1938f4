"""How fast things happen: every duration that an engine takes, in seconds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The durations of the protocol. `adsum.Node` documents and checks those that users set."""

    #: Every node tells every other that it lives, this often.
    heartbeat_interval: float = 1.0
    #: A replica whose counter did not advance for this long is down.
    down_after: float = 6.0
    #: A replica whose link was lost, and for which nobody vouches, is down after this long.
    link_grace: float = 1.0
    #: What is known of a replica that is down is dropped after this long.
    forget_after: float = 1200.0
    #: Changes made within this long of the last ones sent travel together.
    coalesce_interval: float = 0.005

    #: A request for a slice that made no progress for this long may be made again.
    sync_timeout: float = 5.0
    #: Two links to one replica that opened within this long of each other come from a race.
    race_window: float = 1.0
    #: The first, and the longest, time between two dials of one peer that does not answer, ...
    redial_first: float = 0.1
    redial_most: float = 3.0
    #: ... and of one that refuses, so its process is gone.
    redial_refused: float = 30.0

    @property
    def refused_grace(self) -> float:
        """As `link_grace`, once every address of the replica has refused a dial.

        Its process is gone, unless somebody who still hears it says so within this long.
        """
        return 0.15 * self.link_grace

    @property
    def vouch_grace(self) -> float:
        """How long a vouch holds: until the next heartbeat should have been relayed."""
        return 1.5 * self.heartbeat_interval
