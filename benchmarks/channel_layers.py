"""Channel layers for Django Channels: groups over two workers, with Redis and with adsum."""

from benchmarks.chat_load import ChatLoad, Tally
from benchmarks.contenders import ChatSite, chat_site, layer_contenders, reported
from benchmarks.figures import Figure, Samples
from benchmarks.plan import Plan
from benchmarks.processes import Worker, workers

_WORKERS = 2
#: Clients of the room; and of them, those that send again when they have received their own text.
_CLIENTS, _SENDERS = 100, 10
#: Broadcasts per second where the delay is measured.
_RATE = 20.0
#: Seconds of broadcasts before those that count.
_WARM = 1.0


def run(plan: Plan) -> list[Figure]:
    """The delay of a message to a group at a steady rate, and deliveries at full speed."""
    samples = Samples()
    for _ in range(plan.rounds):
        for side in layer_contenders():
            with (
                reported(side),
                chat_site(side, _WORKERS) as site,
                workers(ChatLoad, 1) as (load,),
            ):
                load.call("enter", side.dialect, site.ports, _CLIENTS, "room")
                _pace(site, load, plan, samples)
                _flood(site, load, plan, samples)
                load.call("leave")
    return samples.figures(f"Channel layers: a group of {_CLIENTS} clients on {_WORKERS} workers")


def _pace(site: ChatSite, load: Worker, plan: Plan, samples: Samples) -> None:
    load.call("pace", "shout", _RATE, _WARM, ())
    done: Tally = load.call("pace", "shout", _RATE, 2 * plan.load_seconds, site.processes)
    name, where = site.contender.name, f"at {_RATE:g} messages per second"
    samples.note(f"{where}, received after, p50", name, "ms", 1e3 * done.p50)
    samples.note(f"{where}, received after, p99", name, "ms", 1e3 * done.p99)
    _note_cpu(site, done, where, samples)


def _flood(site: ChatSite, load: Worker, plan: Plan, samples: Samples) -> None:
    done: Tally = load.call("shout", _SENDERS, plan.load_seconds, site.processes)
    name, where = site.contender.name, "at full speed"
    samples.note(f"{where}, deliveries", name, "per second", done.messages / done.seconds)
    _note_cpu(site, done, where, samples)


def _note_cpu(site: ChatSite, done: Tally, where: str, samples: Samples) -> None:
    for what, seconds in site.cpu(done.cpu):
        cost = 1e6 * seconds / done.messages
        samples.note(f"{where}, CPU of {what} for a delivery", site.contender.name, "us", cost)
