"""Figures as a table on the terminal, and as Markdown and JSON in a directory."""

import contextlib
import json
import os
import platform
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path

from benchmarks import redis_presence
from benchmarks.figures import Figure, number
from benchmarks.workload import DESCRIPTION

#: Packages whose versions matter.
_PACKAGES = (
    *("uvicorn", "websockets", "uvloop", "starlette"),
    *("python-socketio", "channels", "channels-redis"),
)
_HEADINGS = ("measure", "median", "lowest to highest", "unit", "n", "the original", "target")
_PREAMBLE = """# Figures

Made by `make bench`; not edited by hand. The samples are in [results.json](results.json).

*The original* is Phoenix Presence (Phoenix 1.7 on the BEAM with JIT), measured on a machine of the
same kind, in a run of its own. *Beside a presence on Redis* compares with what a Python team writes
today, redis-py on asyncio with a hash per room and pub/sub for the changes; there both sides took
turns in this run. What is about browsers is beside python-socketio with a list of users in Redis,
under the same uvicorn and before the same clients, in this run too. Chats are served by adsum under
uvicorn as it is, by adsum with its protocol class (*direct*), by an earlier version of adsum under
uvicorn as it is (*before*), by python-socketio, and by Django Channels with Redis; they take turns.
Each worker is a uvicorn of its own, by its command line. CPU is that of all processes of the
servers, as the kernel counts it. `n` is the number of repetitions.
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
    variables = sysconfig.get_config_vars()
    interpreter = f"{platform.python_implementation()} {platform.python_version()}"
    parts = [
        f"{os.cpu_count()} cores ({platform.machine()}, shared with others)",
        platform.system(),
        f"{interpreter} built {build(str(variables.get('CONFIG_ARGS')))}",
        redis_presence.description(),
        *_versions(_PACKAGES),
        "everything on the loopback",
    ]
    return ", ".join(filter(None, parts))


def build(arguments: str) -> str:
    """How an interpreter was optimised, from the arguments with which it was configured."""
    pgo = "with" if "--enable-optimizations" in arguments else "without"
    lto = "with" if "--with-lto" in arguments else "without"
    return f"{pgo} profile-guided and {lto} link-time optimisation"


def _versions(packages: Iterable[str]) -> Iterator[str]:
    """Each of the packages that is installed, with its version."""
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            yield f"{package} {version(package)}"


def _table(figures: list[Figure]) -> str:
    lines = [_row(_HEADINGS), _row(("---", "---:", "---:", "---", "---:", "---", "---"))]
    for figure in figures:
        cells = (figure.name, number(figure.median), figure.spread, figure.unit)
        lines.append(_row((*cells, str(len(figure.samples)), figure.original, figure.target)))
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
