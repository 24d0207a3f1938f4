"""Broadcasts: clients of a chat send texts that the server sends to the whole room."""

from benchmarks.chat_load import ChatLoad, Tally
from benchmarks.contenders import ChatSite, chat_site, contenders, reported
from benchmarks.figures import Figure, Samples
from benchmarks.plan import Plan
from benchmarks.processes import Worker, workers

_WORKERS = (1, 2)
#: Clients of the room that send; each sends again when it has received its own text.
_SENDERS = 10
#: Broadcasts per second where the delay is measured, and round trips of a bystander meanwhile.
_RATE = 20.0
_BYSTANDER_RATE = 200.0
#: Seconds of broadcasts before those that count: the first ten writes to a new TCP connection cost
#: up to twice as much as later ones.
_WARM = 1.0


def run(plan: Plan) -> list[Figure]:
    """Deliveries per second at full speed, and their CPU, with one and two workers."""
    samples = Samples()
    sides = contenders(plan)
    for _ in range(plan.rounds):
        for count in _WORKERS:
            for size in plan.rooms:
                for side in sides:
                    with (
                        reported(side),
                        chat_site(side, count) as site,
                        workers(ChatLoad, 1) as (load,),
                    ):
                        load.call("enter", side.dialect, site.ports, size, "room")
                        _flood(site, load, size, plan, samples)
                        load.call("leave")
    return samples.figures("Broadcasts at full speed")


def _flood(site: ChatSite, load: Worker, size: int, plan: Plan, samples: Samples) -> None:
    done: Tally = load.call("shout", _SENDERS, plan.load_seconds, site.processes)
    name, where = site.contender.name, f"to {size:,}, {site.description}"
    samples.note(f"{where}, deliveries", name, "per second", done.messages / done.seconds)
    for what, seconds in site.cpu(done.cpu):
        cost = 1e6 * seconds / done.messages
        samples.note(f"{where}, CPU of {what} for a delivery", name, "us", cost)
    samples.note(f"{where}, CPU of the clients", name, "cores", done.own_cpu / done.seconds)


def paced(plan: Plan) -> list[Figure]:
    """The delay of broadcasts at a steady rate, and of a client in another room meanwhile.

    The bystander is a client in a process of its own, so that the reads of the large room do not
    delay it. A contender that cannot bear the rate shows a delay that grows with the time.
    """
    samples = Samples()
    sides = contenders(plan)
    size = max(plan.rooms)
    for _ in range(plan.rounds):
        for side in sides:
            with (
                reported(side),
                chat_site(side, 1) as site,
                workers(ChatLoad, 2) as (load, bystander),
            ):
                load.call("enter", side.dialect, site.ports, size, "room")
                bystander.call("enter", side.dialect, site.ports, 1, "bystander")
                _pace(site, load, bystander, plan, samples)
                load.call("leave")
                bystander.call("leave")
    return samples.figures(f"{_RATE:g} broadcasts per second to {size:,}, 1 worker")


def _pace(site: ChatSite, load: Worker, bystander: Worker, plan: Plan, samples: Samples) -> None:
    name, seconds = site.contender.name, 2 * plan.load_seconds
    load.call("pace", "shout", _RATE, _WARM, ())
    done: Tally = load.call("pace", "shout", _RATE, seconds, site.processes)
    samples.note("received after, p50", name, "ms", 1e3 * done.p50)
    samples.note("received after, p99", name, "ms", 1e3 * done.p99)
    for what, used in site.cpu(done.cpu):
        samples.note(f"CPU of {what} for a delivery", name, "us", 1e6 * used / done.messages)
    bystander.tell("pace", "echo", _BYSTANDER_RATE, seconds, ())
    load.call("pace", "shout", _RATE, seconds, ())
    round_trip: Tally = bystander.answer()
    samples.note("round trip of a bystander, p50", name, "ms", 1e3 * round_trip.p50)
    samples.note("round trip of a bystander, p99", name, "ms", 1e3 * round_trip.p99)
