"""The durations of the protocol: every interval and timeout of an engine, in seconds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The durations of the protocol, in seconds; `adsum.Node` documents the ones that users set."""

    #: Seconds between two heartbeats over each link.
    heartbeat_interval: float = 1.0
    #: Seconds without an advance of its counter after which a replica is down.
    down_after: float = 6.0
    #: Seconds after the loss of its last link until a replica is down, unless a peer vouches.
    link_grace: float = 1.0
    #: Seconds for which a replica that is down is remembered, with its entries.
    forget_after: float = 1200.0
    #: Seconds after a flush during which further changes are gathered into one message.
    coalesce_interval: float = 0.005

    #: Members up to which `heartbeat_interval` holds. With more of them alive, the interval and the
    #: deadlines that follow from it grow in proportion; `crowdpace` has the rule.
    crowd: float = float("inf")

    #: Seconds without progress after which a request for a slice may be made again.
    sync_timeout: float = 5.0
    #: Seconds between the opening of two links to one replica for them to count as a dial race.
    race_window: float = 1.0
    #: Seconds between the first two dials of a peer that does not answer; doubles with each round.
    redial_first: float = 0.1
    #: Seconds between two dials of a peer that does not answer, at most.
    redial_most: float = 3.0
    #: Seconds between two dials of a peer that refuses, at most: its process is gone.
    redial_refused: float = 30.0

    @property
    def refused_grace(self) -> float:
        """Seconds that replace `link_grace` once every address of the replica has refused a dial.

        Its process is gone, unless a peer that still hears it vouches for it within this time.
        """
        return 0.15 * self.link_grace


def carrier_timing() -> Timing:
    """The durations on a carrier, where a heartbeat of each of N members costs N deliveries.

    Heartbeats are half as frequent as over links of their own, because a carrier detects crashes by
    itself. Beyond 100 members they become less frequent in proportion, so that all members together
    cause at most 50 deliveries a second at each node, however many they are.
    """
    return Timing(
        heartbeat_interval=2.0,
        down_after=12.0,
        link_grace=1.0,
        coalesce_interval=0.005,
        crowd=100,
    )
