"""Presence updates at a steady rate in a large room, all of whose members receive each."""

from benchmarks.chat_load import used
from benchmarks.contenders import ChatSite, adsum_contenders, chat_site, reported
from benchmarks.crowd import Changed, Crowd
from benchmarks.figures import Figure, Samples
from benchmarks.plan import Plan
from benchmarks.processes import workers
from benchmarks.sites import ADSUM

#: Updates per second, and the members that take turns in changing.
_RATE = 20.0
_CHANGERS = 100


def run(plan: Plan) -> list[Figure]:
    """The delay of an update, and the CPU of the server for its delivery to one client.

    Beside python-socketio it is measured by `benchmarks.web.fan_out`.
    """
    samples = Samples()
    sides = adsum_contenders(plan)
    for _ in range(plan.rounds):
        for side in sides:
            with reported(side), chat_site(side, 1) as site:
                _change(site, plan, samples)
    return samples.figures(f"{_RATE:g} presence updates per second to {plan.crowd:,}, 1 worker")


def _change(site: ChatSite, plan: Plan, samples: Samples) -> None:
    with workers(Crowd, 1, uvloop=True) as (crowd,):
        ports, count = list(site.ports), plan.crowd
        crowd.call("enter", ADSUM, ports, count, at_once=plan.at_once, per_room=count)
        before = used(site.pids)
        done: Changed = crowd.call("change", min(_CHANGERS, count), 2 * plan.load_seconds, _RATE)
        cpu = sum(used(site.pids)) - sum(before)
        crowd.call("leave")
    name = site.contender.name
    samples.note("received after, p50", name, "ms", 1e3 * done.median)
    samples.note("received after, p95", name, "ms", 1e3 * done.p95)
    samples.note("CPU of the servers for a delivery", name, "us", 1e6 * cpu / done.told)
