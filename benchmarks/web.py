"""adsum.channels beside python-socketio: the same clients, the same server, in one run.

Both sides run under uvicorn as its command line would start it, with uvloop, and a process of
lean clients stands before them (`benchmarks.crowd`). The clients of both sides are the same but
for the language they speak, keep a set of who is there each, and use a fraction of the servers'
CPU; how much is reported too. All of these processes share the cores of one machine.
"""

import time
from statistics import median

from benchmarks.crowd import Changed, Entered
from benchmarks.figures import Figure, Samples
from benchmarks.plan import Plan
from benchmarks.sites import Site, sides, site

#: Storms: over how many servers the clients are spread, and whether frames are compressed.
_STORMS = ((1, False), (3, False), (1, True))
#: Members whose metas change while all look on.
_CHANGERS = 100
#: Changes per second that both sides can bear.
_RATE = 10.0
#: Members of a room of which there are many.
_SMALL_ROOM = 10


def storm(plan: Plan) -> list[Figure]:
    """Many browsers enter one room at once, as after a deployment or at the start of an event.

    The time counts from the first attempt to connect until the last client knows the key of every
    other. So a server may tell of many joins in one frame or send one for each; what counts is
    what the clients know. Without compression, and once with permessage-deflate, which browsers
    offer and uvicorn accepts by default; the bytes are those of the frames, as they travel.
    """
    samples = Samples()
    kinds = sides()
    for repetition in range(plan.storms):
        for nodes, compressed in _STORMS:
            if compressed and repetition:
                continue  # takes long, and shows one thing: what compression leaves of the bytes
            for side in kinds:
                with site(side, nodes, deflate=compressed) as here:
                    _storm(here, plan, compressed, samples)
    group = f"{plan.crowd:,} browsers enter one room, {plan.at_once} at a time"
    return samples.figures(group)


def _storm(here: Site, plan: Plan, compressed: bool, samples: Samples) -> None:
    nodes = len(here.servers)
    where = f"{nodes} node{'s' * (nodes > 1)}{', compressed' * compressed}"
    cpu, redis_cpu = here.cpu(), here.redis_cpu()
    came: Entered = here.enter(
        plan.crowd, at_once=plan.at_once, per_room=plan.crowd, compressed=compressed
    )
    cpu, redis_cpu = here.cpu() - cpu, here.redis_cpu() - redis_cpu
    rows = [
        ("until each knows all", "s", came.seconds),
        ("CPU of the servers", "s", cpu),
        ("CPU of the clients", "s", came.cpu),
        ("frames to a client, median", "frames", median(came.frames)),
        ("frames to a client, most", "frames", max(came.frames)),
        ("received by a client, median", "KB", median(came.received) / 1e3),
        ("received by a client, most", "KB", max(came.received) / 1e3),
    ]
    if here.redis_port:
        rows.append(("CPU of redis-server", "s", redis_cpu))
    for what, unit, value in rows:
        samples.note(f"{where}, {what}", here.side, unit, value)


def fan_out(plan: Plan) -> list[Figure]:
    """Some members of a large room change their metas, and all of the room are told.

    Measured at two speeds. At a steady rate that both sides can bear: how soon a change is seen,
    and what it costs; both send about one frame for each change and client then. At full speed,
    where each of a hundred members changes again as soon as it has seen its own last change: how
    many changes get through, and how long each takes then. Under such load adsum tells several
    changes in one frame; therefore not frames are compared but changes told: a change counts
    once for each client that received it.

    One side comes after the other, as a thousand idle clients of the other would disturb by
    their pings.
    """
    samples = Samples()
    for side in sides():
        with site(side, 1) as here:
            here.enter(plan.crowd, at_once=plan.at_once, per_room=plan.crowd)
            for _ in range(plan.weighings):
                _change(here, plan, _RATE, f"{_RATE:g} changes/s", samples)
                _change(here, plan, 0.0, "full speed", samples)
    return samples.figures(f"Changes in a room of {plan.crowd:,}")


def _change(here: Site, plan: Plan, rate: float, speed: str, samples: Samples) -> None:
    cpu = here.cpu()
    done: Changed = here.crowd.call(
        "change", min(_CHANGERS, plan.crowd), plan.changing_seconds, rate
    )
    cpu = here.cpu() - cpu
    rows = [
        ("seen after, median", "ms", 1e3 * done.median),
        ("seen after, p95", "ms", 1e3 * done.p95),
        ("CPU of the server for a change told to a client", "us", 1e6 * cpu / done.told),
    ]
    if not rate:
        rows = [
            ("changes", "per second", done.changes / done.seconds),
            ("changes told to clients", "per second", done.told / done.seconds),
            ("frames to clients", "per second", done.frames / done.seconds),
            *rows,
        ]
    rows.append(("CPU of the clients", "s", done.cpu))
    for what, unit, value in rows:
        samples.note(f"{speed}, {what}", here.side, unit, value)


def connections(plan: Plan) -> list[Figure]:
    """What a browser costs that is connected, has entered a room of ten, and does nothing.

    Resident memory of the one server process with all of them, less that before they came. With
    compression, which browsers offer and uvicorn accepts by default, and without.
    """
    samples = Samples()
    kinds = sides()
    for _ in range(plan.weighings):
        for deflate in (False, True):
            for side in kinds:
                what = f"a connection, permessage-deflate {'on' if deflate else 'off'}"
                samples.note(what, side, "KB", _weigh(side, plan.crowd, deflate) / 1e3)
    return samples.figures(f"Memory of {plan.crowd:,} idle browsers")


def _weigh(side: str, count: int, deflate: bool) -> float:
    with site(side, 1, deflate=deflate) as here:
        before = here.servers[0].call("resident")
        here.enter(count, at_once=_SMALL_ROOM, per_room=_SMALL_ROOM, compressed=deflate)
        time.sleep(0.5)
        return float(here.servers[0].call("resident") - before) / count
