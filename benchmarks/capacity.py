"""The costs of connections, messages and presences, for the page about capacity.

python -m benchmarks push paced updates joined memory changes deltas --output FOLDER
python -m benchmarks.capacity FOLDER/results.json          prints the tables
python -m benchmarks.capacity FOLDER/results.json docs     puts them into docs/capacity.md
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import Figure, number
from benchmarks.pages import replaced, table

BEGIN, END = "<!-- capacity: begin -->", "<!-- capacity: end -->"
#: The share of a core that a worker may use in normal times; the rest is for bursts.
_SHARE = 0.6
#: Bytes of memory that a worker may use.
_MEMORY = 1e9
#: adsum under uvicorn as it is, and with adsum's protocol class.
PLAIN, DIRECT = "adsum", "adsum, direct"
_COLUMNS = {PLAIN: "uvicorn as it is", DIRECT: "with `WebSocketProtocol`"}


@dataclass(frozen=True, slots=True)
class Cost:
    """One cost of the formulas.

    Attributes:
        symbol: In the formulas.
        text: For the page.
        figure: A pattern of group and name of the figure, without its side; of several figures the
            last counts, which is that of the largest size.
        unit: Of the cost.
        convert: Makes the cost from the value of the figure.
        by_side: Whether it depends on the protocol class of the server.
    """

    symbol: str
    text: str
    figure: str
    unit: str
    convert: Callable[[float], float] = float
    by_side: bool = True


def _of_rate(per_second: float) -> float:
    """Microseconds of one of so many per second."""
    return 1e6 / per_second


def _of_bytes(size: float) -> float:
    return size / 1e3


COSTS = (
    Cost(
        "j",
        "CPU of a client that connects and joins",
        "joined connections.*: CPU of the servers for connecting and joining",
        "us",
    ),
    Cost(
        "m",
        "CPU of a message from a client and its reply",
        "Push and reply.*: 1 worker, CPU of the servers for a reply",
        "us",
    ),
    Cost(
        "d",
        "CPU of a broadcast, for each client that receives it",
        "broadcasts per second.*: CPU of the servers for a delivery",
        "us",
    ),
    Cost(
        "p",
        "CPU of a presence change, for each client that receives it",
        "presence updates per second.*: CPU of the servers for a delivery",
        "us",
    ),
    Cost(
        "t",
        "CPU of a presence change on its own node",
        "Changing: track, .* held",
        "us",
        convert=_of_rate,
        by_side=False,
    ),
    Cost(
        "g",
        "CPU of a change of another node, alone",
        "Merging: delta of one entry .*: decode and merge",
        "us",
        by_side=False,
    ),
    Cost(
        "b",
        "CPU of a change of another node, among 1,000",
        "Merging: delta of 1,000 entries .*: decode and merge",
        "us",
        by_side=False,  # the milliseconds of 1,000 are the microseconds of one
    ),
    Cost("w", "memory of a worker without clients", "joined.*: a worker without clients", "MB"),
    Cost("c", "memory of a joined connection", "joined.*: a joined connection", "kB"),
    Cost(
        "o",
        "memory of a presence on its own node",
        "Memory: a presence on its owner, .*",
        "kB",
        convert=_of_bytes,
        by_side=False,
    ),
    Cost(
        "r",
        "memory of a presence on each other node",
        "Memory: a presence on its replica, .*",
        "kB",
        convert=_of_bytes,
        by_side=False,
    ),
)


@dataclass(frozen=True, slots=True)
class Application:
    """The load of one worker of an application, per second where it is a rate.

    Attributes:
        text: For the page.
        connections: Clients of the worker, each with one presence.
        joins: Clients that connect and join.
        messages: From clients.
        deliveries: Broadcasts to clients, one for each client that receives one.
        presence_deliveries: The same for presence changes.
        changes: Presences that are tracked, updated or untracked on this worker.
        elsewhere: The same on all other workers of the cluster.
        others: Presences of all other workers.
    """

    text: str
    connections: int
    joins: float
    messages: float
    deliveries: float
    presence_deliveries: float
    changes: float
    elsewhere: float
    others: int

    def cpu(self, costs: Mapping[str, float]) -> float:
        """Cores that the worker uses."""
        return 1e-6 * (
            self.joins * costs["j"]
            + self.messages * costs["m"]
            + self.deliveries * costs["d"]
            + self.presence_deliveries * costs["p"]
            + self.changes * costs["t"]
            + self.elsewhere * costs["g"]
        )

    def memory(self, costs: Mapping[str, float]) -> float:
        """MB that the worker uses."""
        own = self.connections * (costs["c"] + costs["o"])
        return costs["w"] + (own + self.others * costs["r"]) / 1e3


APPLICATIONS = (
    Application(
        "chat, rooms of 50: each client sends once in 30 s, reconnects once in 5 min; 4 workers",
        connections=5_000,
        joins=5_000 / 300,
        messages=5_000 / 30,
        deliveries=50 * 5_000 / 30,
        presence_deliveries=2 * 50 * 5_000 / 300,
        changes=2 * 5_000 / 300,
        elsewhere=3 * 2 * 5_000 / 300,
        others=15_000,
    ),
    Application(
        "an event: each of 1,000 viewers receives 20 messages each second; 1 worker",
        connections=1_000,
        joins=0,
        messages=20,
        deliveries=20_000,
        presence_deliveries=0,
        changes=0,
        elsewhere=0,
        others=0,
    ),
    Application(
        "dashboards: each receives a message each second, reconnects once in 5 min; 2 workers",
        connections=10_000,
        joins=10_000 / 300,
        messages=0,
        deliveries=10_000,
        presence_deliveries=0,
        changes=2 * 10_000 / 300,
        elsewhere=2 * 10_000 / 300,
        others=10_000,
    ),
    Application(
        "games: each client sends and is answered 5 times each second; 1 worker",
        connections=1_000,
        joins=0,
        messages=5_000,
        deliveries=0,
        presence_deliveries=0,
        changes=0,
        elsewhere=0,
        others=0,
    ),
)


def record(results: Mapping[str, Any]) -> dict[str, Any]:
    """The machine and the costs of a results.json, as docs/capacity.json keeps them.

    Raises:
        ValueError: A figure is missing.
    """
    figures = [Figure.from_json(row) for row in results["figures"]]
    return {"machine": results["machine"], "costs": dict(_costs(figures))}


def _costs(figures: Iterable[Figure]) -> Iterator[tuple[str, dict[str, list[float]]]]:
    """Symbol and, by side, lowest, median and highest value of each cost."""
    figures = list(figures)
    for cost in COSTS:
        by_side = {}
        for side in (PLAIN, DIRECT) if cost.by_side else (PLAIN,):
            pattern = cost.figure + (f": {side}" if cost.by_side else "")
            found = [one for one in figures if re.search(f"{pattern}$", f"{one.group}: {one.name}")]
            if found:
                values = sorted(map(cost.convert, found[-1].samples))
                by_side[side] = [values[0], median(values), values[-1]]
        if PLAIN not in by_side:
            raise ValueError(f"no figure {cost.figure!r}: see the module for the benchmarks to run")
        yield cost.symbol, by_side


def render(recorded: Mapping[str, Any]) -> str:
    """The tables of the page."""
    costs = recorded["costs"]
    sides = [side for side in (PLAIN, DIRECT) if side in costs["m"]]
    medians = {side: _medians(costs, side) for side in sides}
    headings = [_COLUMNS[side] for side in sides]
    parts = [
        f"Measured on: {recorded['machine']}.\n",
        table(["", "cost", "unit", *headings], [_cost(each, costs, sides) for each in COSTS]),
        f"One worker at {_SHARE:.0%} of a core, or with {_MEMORY / 1e9:g} GB, and nothing else:\n",
        table(["", *headings], [[text, *cells] for text, *cells in _most(medians)]),
        "One worker of an application:\n",
        table(
            ["application", "connections", *[f"cores, {each}" for each in headings], "memory, MB"],
            [_application(each, medians) for each in APPLICATIONS],
        ),
    ]
    return "\n".join(parts)


def _medians(costs: Mapping[str, Any], side: str) -> dict[str, float]:
    """The costs of one side; those that depend on no side are the same for all."""
    return {symbol: values.get(side, values[PLAIN])[1] for symbol, values in costs.items()}


def _cost(cost: Cost, costs: Mapping[str, Any], sides: Iterable[str]) -> list[str]:
    """A row: the median, with the lowest and the highest in brackets."""
    cells = []
    for side in sides:
        values = costs[cost.symbol].get(side)
        cells.append("{1} ({0} to {2})".format(*map(number, values)) if values else "the same")
    return [f"`{cost.symbol}`", cost.text, cost.unit, *cells]


def _most(medians: Mapping[str, Mapping[str, float]]) -> Iterator[list[str]]:
    """Rows: the most that one worker bears of each kind of load."""
    for text, symbol in (
        ("clients that connect and join, per second", "j"),
        ("messages with replies, per second", "m"),
        ("deliveries of broadcasts, per second", "d"),
        ("deliveries of presence changes, per second", "p"),
        ("changes of other nodes, one at a time, per second", "g"),
    ):
        yield [text, *[number(_SHARE * 1e6 / each[symbol]) for each in medians.values()]]
    for text, symbols in (
        ("joined connections with a presence each", "co"),
        ("presences of other nodes", "r"),
    ):
        rows = [
            (_MEMORY / 1e3 - 1e3 * each["w"]) / sum(each[symbol] for symbol in symbols)
            for each in medians.values()
        ]
        yield [text, *map(number, rows)]


def _application(one: Application, medians: Mapping[str, Mapping[str, float]]) -> list[str]:
    cores = [f"{one.cpu(each):.2f}" for each in medians.values()]
    return [one.text, f"{one.connections:,}", *cores, f"{one.memory(medians[PLAIN]):.0f}"]


def main() -> None:
    """Print the tables, or put them where the second argument says."""
    recorded = record(json.loads(Path(sys.argv[1]).read_text()))
    if len(sys.argv) < 3:
        print(render(recorded))
        return
    folder = Path(sys.argv[2])
    (folder / "capacity.json").write_text(json.dumps(recorded, indent=1) + "\n")
    page = folder / "capacity.md"
    page.write_text(replaced(page.read_text(), BEGIN, END, render(recorded)))


if __name__ == "__main__":
    main()
