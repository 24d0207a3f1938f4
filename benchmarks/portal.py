"""How fast threads call a node through a portal: calls per second, and the added latency.

python -m benchmarks portal                   1 and 4 threads, as in a whole run
python -m benchmarks.portal                   1, 2, 4 and 8 threads, 5 runs each
python -m benchmarks.portal 4 --runs 9        4 threads, 9 runs

Each thread calls `count` as fast as it can. The latency is that of one thread which calls every
millisecond, so the loop sleeps before each call; the same call inside the loop is printed beside.
"""

import argparse
import statistics
import threading
import time
from collections.abc import Sequence

import adsum
from benchmarks.figures import Figure, percentile
from benchmarks.plan import Plan

THREADS = (1, 2, 4, 8)
#: Calls of one run, of all threads together.
CALLS = 20_000
#: Calls that are timed one by one, and seconds between two of them.
TIMED = 2_000
PAUSE = 0.001


def run(plan: Plan) -> list[Figure]:
    """Calls per second from one and from four threads, and the latency that the portal adds."""
    with adsum.Portal(adsum.Node(siblings=False)) as portal:
        portal.track("room", "ann")
        figures = [_rate(portal, threads, plan) for threads in (1, 4)]
        return figures + _latency(portal, plan)


def _rate(portal: adsum.Portal, threads: int, plan: Plan) -> Figure:
    samples = [calls_per_second(portal, threads, plan.calls) for _ in range(plan.repetitions)]
    name = f"calls, {threads} thread{'s' if threads > 1 else ''}"
    target = "10,000" if threads == 4 else ""
    return _figure(name, "per second", samples, target)


def _latency(portal: adsum.Portal, plan: Plan) -> list[Figure]:
    """Of each repetition the median and the 99th percentile, beside the call in the loop."""
    samples: dict[str, list[float]] = {"p50": [], "p99": []}
    within = []
    for _ in range(plan.repetitions):
        taken = latencies(portal, plan.calls // 10)
        base = inside(portal)
        within.append(1e6 * base)
        for name, percent in (("p50", 50), ("p99", 99)):
            samples[name].append(1e6 * (percentile(taken, percent) - base))
    added = [_figure(f"latency added to a call: {name}", "us", samples[name]) for name in samples]
    return [*added, _figure("the same call in the event loop", "us", within)]


def _figure(name: str, unit: str, samples: list[float], target: str = "") -> Figure:
    return Figure(group="From threads", name=name, unit=unit, samples=tuple(samples), target=target)


def calls_per_second(portal: adsum.Portal, threads: int, calls: int = CALLS) -> float:
    """The rate of all threads together; fails if a call is lost or executed twice."""
    executed = 0

    def execute() -> int:
        nonlocal executed
        executed += 1
        return portal_presence.count("room")

    portal_presence = portal.call(adsum.Presence, portal.node)
    each = calls // threads

    def work() -> None:
        for _ in range(each):
            assert portal.call(execute) == 1

    working = [threading.Thread(target=work) for _ in range(threads)]
    began = time.perf_counter()
    for thread in working:
        thread.start()
    for thread in working:
        thread.join()
    rate = each * threads / (time.perf_counter() - began)
    assert executed == each * threads
    portal.call(portal.node.stop_observing, portal_presence.observer)
    return rate


def latencies(portal: adsum.Portal, times: int = TIMED) -> list[float]:
    """Seconds of each of many calls from one thread, with pauses between them."""
    taken = []
    for _ in range(times):
        time.sleep(PAUSE)
        began = time.perf_counter()
        portal.count("room")
        taken.append(time.perf_counter() - began)
    return taken


def inside(portal: adsum.Portal) -> float:
    """Seconds of the same call inside the loop."""
    presence = portal.call(adsum.Presence, portal.node)

    def many() -> float:
        began = time.perf_counter()
        for _ in range(TIMED):
            presence.count("room")
        return (time.perf_counter() - began) / TIMED

    return portal.call(many)


def report(portal: adsum.Portal, threads: Sequence[int], runs: int) -> None:
    """Print a line for each number of threads, and one for the latency."""
    for count in threads:
        rates = [calls_per_second(portal, count) for _ in range(runs)]
        spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
        print(f"{count} threads: {statistics.median(rates):,.0f} calls/s ({spread})", flush=True)
    taken = latencies(portal)
    figures = [f"{name} {percentile(taken, at) * 1e6:.0f}" for name, at in QUANTILES.items()]
    print(f"latency, us: {', '.join(figures)}; inside the loop {inside(portal) * 1e6:.2f}")


QUANTILES = {"median": 50, "10%": 10, "90%": 90, "99%": 99}


def main() -> None:
    """Measure on one node without peers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.portal", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("threads", nargs="*", type=int, default=THREADS)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with adsum.Portal(adsum.Node(siblings=False)) as portal:
        portal.track("room", "ann")
        report(portal, options.threads, options.runs)


if __name__ == "__main__":
    main()
