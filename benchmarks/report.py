"""Figures as a table on the terminal, and as Markdown and JSON in a directory."""

import json
import os
import platform
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from benchmarks import redis_presence, socketio_room
from benchmarks.figures import Figure, number
from benchmarks.workload import DESCRIPTION

_HEADINGS = ("measure", "median", "lowest to highest", "unit", "n", "the original", "target")
_PREAMBLE = """# Figures

Made by `make bench`; not edited by hand. The samples are in [results.json](results.json).

*The original* is Phoenix Presence (Phoenix 1.7 on the BEAM with JIT), measured on a machine of the
same kind, in a run of its own. *Beside a presence on Redis* compares with what a Python team writes
today, redis-py on asyncio with a hash per room and pub/sub for the changes; there both sides took
turns in this run. What is about browsers is beside python-socketio with a list of users in Redis,
under the same uvicorn and before the same clients, in this run too. `n` is the number of
repetitions.
"""


def print_figures(figures: Iterable[Figure]) -> None:
    """A line for each figure."""
    for figure in figures:
        beside = f"   [original: {figure.original}]" if figure.original else ""
        beside += f"   [target: {figure.target}]" if figure.target else ""
        value = f"{number(figure.median):>12} {figure.unit:<11}"
        print(f"  {figure.name:<68} {value} ({figure.spread}){beside}", flush=True)


def write(figures: list[Figure], plots: list[tuple[str, str]], directory: Path) -> None:
    """Write results.md and results.json.

    Args:
        figures: In the order in which they are to be shown.
        plots: File name and description of each picture that is in the directory.
        directory: Where to.
    """
    samples = {"machine": machine(), "figures": [figure.as_json() for figure in figures]}
    (directory / "results.json").write_text(json.dumps(samples, indent=1) + "\n")
    parts = [_PREAMBLE, f"Machine: {machine()}. {DESCRIPTION}\n"]
    parts += [f"![{description}]({name})\n" for name, description in plots]
    for group, rows in groupby(figures, key=lambda figure: figure.group):
        parts += [f"## {group}\n", _table(list(rows))]
    (directory / "results.md").write_text("\n".join(parts))


def machine() -> str:
    """What the figures were measured on."""
    clients = [redis_presence.description(), socketio_room.description()]
    return (
        f"{os.cpu_count()} cores ({platform.machine()}, shared with others), "
        f"{platform.system()}, {platform.python_implementation()} {platform.python_version()}, "
        f"{', '.join([*filter(None, clients), 'everything on the loopback'])}"
    )


def _table(figures: list[Figure]) -> str:
    lines = [_row(_HEADINGS), _row(("---", "---:", "---:", "---", "---:", "---", "---"))]
    for figure in figures:
        cells = (figure.name, number(figure.median), figure.spread, figure.unit)
        lines.append(_row((*cells, str(len(figure.samples)), figure.original, figure.target)))
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
