"""Measures adsum, prints the figures, and after a whole run writes them down.

python -m benchmarks                 everything, to benchmarks/results/
python -m benchmarks reads wire      some of it, to the terminal
python -m benchmarks --quick         everything, small: only to see that it runs
python -m benchmarks --against v1    beside an earlier version, a revision or a folder
"""

import argparse
import gc
import hashlib
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import adsum
from benchmarks import (
    authentication,
    broadcasting,
    carriers,
    cells,
    channel_layers,
    cluster,
    deltas,
    earlier,
    interest,
    joined,
    large_messages,
    local,
    memory,
    messages,
    plots,
    portal,
    presence_updates,
    redis_presence,
    report,
    round_trips,
    services,
    web,
    wire,
    yardstick,
)
from benchmarks.figures import MACHINE, Figure
from benchmarks.measure import yardstick_loop
from benchmarks.plan import FULL, QUICK, Plan

BENCHMARKS: dict[str, Callable[[Plan], list[Figure]]] = {
    "changes": local.changes,
    "reads": local.reads,
    "deltas": deltas.run,
    "memory": memory.resident,
    "collector": memory.collector,
    "wire": wire.run,
    "latency": cluster.latency,
    "messages": messages.run,
    "large_messages": large_messages.run,
    "failure": cluster.failure,
    "catchup": cluster.catch_up,
    "authentication": authentication.run,
    "idle": cluster.idle,
    "cells": cells.run,
    "interest": interest.run,
    "carriers": carriers.run,
    "portal": portal.run,
    "services": services.run,
    "redis": yardstick.run,
    "storm": web.storm,
    "fanout": web.fan_out,
    "connections": web.connections,
    "push": round_trips.run,
    "broadcast": broadcasting.run,
    "paced": broadcasting.paced,
    "updates": presence_updates.run,
    "joined": joined.run,
    "channel_layers": channel_layers.run,
}
_RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Run what the command line asks for."""
    options = _parse()
    plan = QUICK if options.quick else FULL
    source = _fingerprint()
    began = time.perf_counter()
    with ExitStack() as stack:
        if options.against:
            try:
                plan = replace(
                    plan, earlier=stack.enter_context(earlier.source_of(options.against))
                )
            except ValueError as error:
                print(f"nothing is compared: {error}")
        figures = _measure(options.names or list(BENCHMARKS), plan, quick=options.quick)
    print(f"{time.perf_counter() - began:.0f} s")
    output = options.output or (None if options.quick or options.names else _RESULTS)
    if _fingerprint() != source:
        print("the source changed meanwhile: these are the figures of no version, not written")
        return 1
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        report.write(figures, plots.draw(figures, output), output)
        print(f"written to {output}")
    return 0


def _measure(names: list[str], plan: Plan, *, quick: bool) -> list[Figure]:
    """Run some benchmarks, and print their figures."""
    figures, speeds = list[Figure](), list[float]()
    for name in names:
        speeds += [1e3 * yardstick_loop() for _ in range(3)]
        why_not = redis_presence.missing() if name == "redis" else ""
        if why_not:
            print(f"{name}: skipped, {why_not}")
            continue
        print(f"{name}:", flush=True)
        measured = BENCHMARKS[name](plan)
        if plan.earlier is not None and name in earlier.COMPARED:
            measured += earlier.measure(name, plan.earlier, quick=quick)
        report.print_figures(measured)
        figures += measured
        gc.collect()
    figures.append(_steadiness(speeds))
    report.print_figures(figures[-1:])
    return figures


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="a smoke run of some minutes")
    parser.add_argument("--output", type=Path, help="where to write results, whatever was run")
    parser.add_argument("--against", metavar="VERSION", help="an earlier version of adsum")
    options = parser.parse_args()
    unknown = set(options.names) - BENCHMARKS.keys()
    if unknown:
        parser.error(
            f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}"
        )
    return options


def _fingerprint() -> str:
    """Changes when adsum's source does; workers that start later would import the new one."""
    digest = hashlib.sha256()
    for path in sorted(Path(adsum.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _steadiness(speeds: list[float]) -> Figure:
    return Figure(
        group=MACHINE,
        name="a fixed loop of the interpreter, before each benchmark",
        unit="ms",
        samples=tuple(speeds),
    )


if __name__ == "__main__":
    sys.exit(main())
