"""Messages between two processes: a burst within one turn of the loop, and one at a time."""

from benchmarks.figures import Figure, percentile
from benchmarks.host import Host
from benchmarks.plan import Plan
from benchmarks.processes import workers

#: Characters of a message of a burst.
_SIZE = 9_000
#: Seconds between messages that are timed one at a time.
_INTERVAL = 0.005


def run(plan: Plan) -> list[Figure]:
    """From `publish` in one process to the subscriber in another, over TCP."""
    burst = f"{plan.burst:,} messages of {_SIZE / 1_000:g} kB in one turn"
    samples: dict[str, list[float]] = {}
    with workers(Host, 2) as (sender, receiver):
        address = sender.call("start", "sender", listen="127.0.0.1:0")
        receiver.call("start", "receiver", listen="127.0.0.1:0", peers=address)
        receiver.call("settle", 2, 0)
        receiver.call("subscribe")
        for _ in range(plan.repetitions):
            calls = sender.call("publish_paced", plan.changes, _INTERVAL)
            delays = receiver.call("received_messages", plan.changes)
            until_sent = sender.call("publish", plan.burst, _SIZE)
            until_received = max(receiver.call("received_messages", plan.burst))
            for name, seconds in (
                ("publish when idle: the call, p50", percentile(calls, 50)),
                ("publish when idle: until it is received, p50", percentile(delays, 50)),
                (f"{burst}: until every call returns", until_sent),
                (f"{burst}: until all are received", until_received),
            ):
                samples.setdefault(name, []).append(1e3 * seconds)
    return [
        Figure(group="Messages", name=name, unit="ms", samples=tuple(values))
        for name, values in samples.items()
    ]
