"""The parts of an engine, and the construction of each from the parts that it uses.

From the bottom up; each part knows only parts that are constructed before it:

* `state` holds slices, `view` the presences that are shown, `exchange` moves slices, `own` changes
  this node's slice, and `grace` keeps the deadlines of its presences that linger;
* `liveness` decides which replicas are up, with the deadlines of `crowdpace`, `departures` keeps
  those that said goodbye, `digests` relays counters and goodbyes, `dialler` decides which address
  to dial, `joining` decides when the node has joined, `messaging` sends published messages, and
  `reassembly` joins the pieces of received ones;
* `suspicion` asks about members that may be dead, and `reconciler` applies changes of members and
  the end of links to all of these;
* `redundancy` chooses among links to one replica, `admission` admits or refuses the replicas behind
  new links, and `goodbyes` applies goodbyes;
* `membership` applies the statements of peers about the liveness of replicas.
"""

from random import Random

from .admission import Admission
from .clock import Clock
from .conflicts import Conflicts
from .departures import Departures
from .dialler import Dialler
from .digests import Digests
from .effects import EffectQueue
from .exchange import Exchange
from .goodbyes import Goodbyes
from .grace import Grace
from .heartbeats import Heartbeats
from .joining import Joining
from .links import Links
from .liveness import Liveness
from .membership import Membership
from .messaging import Messaging
from .ownslice import OwnSlice
from .reassembly import Reassembly
from .reconciler import Reconciler
from .redundancy import Redundancy
from .state import Replica
from .suspicion import Suspicion
from .timing import Timing
from .view import View


class Parts:
    """The parts of one engine.

    Args:
        replica: The name and incarnation of this node.
        timing: The durations of the protocol.
        rng: The only source of randomness.
        now: The present, in monotonic seconds.
    """

    def __init__(self, replica: Replica, timing: Timing, rng: Random, now: float) -> None:
        self.replica = replica
        self.view = View()
        self._timing = timing
        self._clock = clock = Clock(now, timing.heartbeat_interval)
        self._links = links = Links(rng)
        self._effects = effects = EffectQueue()
        self._exchange = exchange = Exchange(replica, self.view, links, effects, timing)
        self._own = own = OwnSlice(exchange, self.view)
        self._grace = Grace()
        self._messaging = messaging = Messaging(links, effects)
        self._reassembly = reassembly = Reassembly()
        self._liveness = liveness = Liveness(timing, replica)
        self._departures = departures = Departures(timing)
        self._dialler = dialler = Dialler(timing, rng)
        self._conflicts = conflicts = Conflicts(replica, effects)
        self._digests = digests = Digests(liveness, departures, exchange, links, effects)
        self._joining = joining = Joining(
            clock, links, liveness, departures, exchange, dialler, effects
        )
        self._suspicion = suspicion = Suspicion(
            clock, links, effects, liveness, departures, digests, joining
        )
        self._reconciler = reconciler = Reconciler(
            timing,
            clock,
            links,
            effects,
            exchange,
            liveness,
            departures,
            joining,
            dialler,
            conflicts,
            messaging,
            reassembly,
            suspicion,
        )
        self._heartbeats = heartbeats = Heartbeats(own, liveness, departures, links, effects)
        self._redundancy = redundancy = Redundancy(replica, timing, clock, links, reconciler)
        self._admission = admission = Admission(
            replica,
            clock,
            links,
            effects,
            exchange,
            liveness,
            departures,
            digests,
            joining,
            dialler,
            conflicts,
            suspicion,
            reconciler,
            redundancy,
            heartbeats,
        )
        self._goodbyes = goodbyes = Goodbyes(
            replica,
            clock,
            own,
            links,
            effects,
            exchange,
            liveness,
            departures,
            digests,
            joining,
            reconciler,
            admission,
            heartbeats,
        )
        self._membership = Membership(
            replica,
            clock,
            own,
            links,
            effects,
            exchange,
            liveness,
            departures,
            digests,
            joining,
            conflicts,
            suspicion,
            reconciler,
            redundancy,
            heartbeats,
            goodbyes,
        )
