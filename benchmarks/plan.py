"""How much a run measures: the whole, or a smoke run."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes and repetitions of one run."""

    repetitions: int = 5
    #: Presences held while one more is tracked; presences on the topic that is listed.
    held: tuple[int, ...] = (1_000, 10_000, 100_000)
    listed: tuple[int, ...] = (10, 100, 1_000, 10_000, 100_000)
    #: Presences that a delta is merged into.
    merged_into: int = 200_000
    #: Presences of the node that another catches up with, and whose memory is weighed.
    large: int = 100_000
    #: Repetitions of what takes long and varies little.
    weighings: int = 3
    #: Presences that the garbage collector has to walk over.
    collected: int = 500_000
    #: Changes timed in one repetition of a latency measure.
    changes: int = 80
    #: Calls of all threads together in one repetition.
    calls: int = 20_000
    #: Messages of a burst.
    burst: int = 2_000
    clusters: tuple[int, ...] = (3, 30)
    #: Processes that are measured as so many cells, beside one mesh of all.
    cells: tuple[tuple[int, tuple[int, ...]], ...] = ((24, (1, 4, 8)), (48, (1, 4, 8)))
    #: Nodes on one carrier.
    crowd_on_carrier: int = 100
    #: Nodes among which a join is counted, and nodes of a crowd, over each carrier and the mesh.
    carried: tuple[int, ...] = (3, 10, 30, 100)
    carried_crowd: int = 100
    #: Instances of the service that is resolved.
    instances: tuple[int, ...] = (3, 30, 300)
    idle_seconds: float = 1.5
    #: How often a crowd of browsers enters; that takes long on the other side.
    storms: int = 2
    #: Browsers of the benchmarks of the web, and how many of them connect at the same time.
    crowd: int = 1_000
    at_once: int = 100
    #: Seconds for which members of a large room change.
    changing_seconds: float = 4.0
    #: Turns that the contenders of the chat take, and the seconds of each load.
    rounds: int = 3
    load_seconds: float = 1.5
    #: Clients that push, and clients in a room that receives broadcasts.
    pushers: int = 100
    rooms: tuple[int, ...] = (100, 1_000)
    #: Connections that have joined a channel and are idle.
    joined: int = 5_000
    #: The folder of the package of an earlier version, to be measured beside this one.
    earlier: Path | None = None


FULL = Plan()
#: For seeing that everything runs; its figures mean nothing.
QUICK = Plan(
    repetitions=2,
    held=(1_000,),
    listed=(10, 1_000),
    merged_into=5_000,
    large=5_000,
    weighings=1,
    collected=20_000,
    changes=20,
    burst=200,
    calls=2_000,
    clusters=(3, 10),
    cells=((6, (1, 2)),),
    crowd_on_carrier=12,
    carried=(3, 10),
    carried_crowd=20,
    instances=(3, 30),
    idle_seconds=1.0,
    crowd=60,
    at_once=20,
    changing_seconds=0.5,
    storms=1,
    rounds=1,
    load_seconds=0.5,
    rooms=(100,),
    joined=200,
)
