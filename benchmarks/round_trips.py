"""Push and reply: clients of a chat send a text, wait for the reply, and send again."""

from benchmarks.chat_load import ChatLoad, Tally
from benchmarks.contenders import ChatSite, chat_site, contenders, reported
from benchmarks.figures import Figure, Samples
from benchmarks.plan import Plan
from benchmarks.processes import workers

_WORKERS = (1, 2)


def run(plan: Plan) -> list[Figure]:
    """Replies per second and their CPU, with one and two workers; a round trip of one client."""
    samples = Samples()
    sides = contenders(plan)
    for _ in range(plan.rounds):
        for count in _WORKERS:
            for side in sides:
                with reported(side), chat_site(side, count) as site:
                    _measure(site, plan, samples)
    return samples.figures(f"Push and reply, {plan.pushers} clients")


def _measure(site: ChatSite, plan: Plan, samples: Samples) -> None:
    """Load the workers of one contender; the time of a single client is taken with one worker."""
    name, where = site.contender.name, site.description
    if len(site.pids) == 1:
        with workers(ChatLoad, 1) as (load,):
            load.call("enter", site.contender.dialect, site.ports, 1, "alone")
            alone: Tally = load.call("echo", plan.load_seconds / 2, site.pids)
            load.call("leave")
        samples.note("a round trip alone, p50", name, "ms", 1e3 * alone.p50)
        samples.note("a round trip alone, p99", name, "ms", 1e3 * alone.p99)
    with workers(ChatLoad, 1) as (load,):
        load.call("enter", site.contender.dialect, site.ports, plan.pushers, "pushers")
        done: Tally = load.call("echo", plan.load_seconds, site.processes)
        load.call("leave")
    samples.note(f"{where}, replies", name, "per second", done.messages / done.seconds)
    for what, seconds in site.cpu(done.cpu):
        samples.note(
            f"{where}, CPU of {what} for a reply", name, "us", 1e6 * seconds / done.messages
        )
    share = done.own_cpu / done.seconds
    samples.note(f"{where}, CPU of the clients", name, "cores", share)
