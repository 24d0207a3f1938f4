"""What works with programs and libraries of others, as a table: `make compat` writes it.

A test with the mark `compat` records a row for each promise that it has seen kept. `make compat`
runs these tests alone, and then this file:
``python -m tests.support.compatibility RECORD.json PAGE.md``.
"""

import json
import os
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import TypedDict

import pytest
from benchmarks.pages import replaced, table

#: Set to 1 for a run that tries everything, also what takes minutes.
SWITCH = "COMPAT"
#: Names the file of the record; nothing is written without it.
RECORD = "COMPAT_RECORD"
BEGIN = "<!-- compatibility: begin -->"
END = "<!-- compatibility: end -->"
_HEAD = ["with", "version", "works", "test"]

#: Marks a test that takes too long for every day.
only_for_the_record = pytest.mark.skipif(
    not os.environ.get(SWITCH), reason="takes minutes: `make compat` runs it"
)


class Row(TypedDict):
    """A promise that a test has seen kept."""

    part: str
    version: str
    works: str
    test: str


class Compatible:
    """Takes in the promises that one test has seen kept.

    Args:
        rows: The rows of this run.
        test: The id of the test.
    """

    def __init__(self, rows: list[Row], test: str) -> None:
        self._rows = rows
        self._test = test.partition("::")[0]

    def __call__(self, part: str, works: str, version: str | None = None) -> None:
        """Record a row.

        Args:
            part: The program or library: its name on the package index, or `version` is given.
            works: The promise, as a noun: "a killed worker".
            version: The version of a program.
        """
        found = version or metadata.version(part)
        self._rows.append({"part": part, "version": found, "works": works, "test": self._test})


def recording() -> bool:
    """Whether `make compat` runs, so that a test tries everything."""
    return bool(os.environ.get(SWITCH))


def save(rows: Iterable[Row]) -> None:
    """Write the rows to the file that the environment names, if it names one."""
    if name := os.environ.get(RECORD):
        lines = ",\n".join(json.dumps(row) for row in sorted(rows, key=_place))
        Path(name).write_text(f"[\n{lines}\n]\n")


def render(rows: Iterable[Row]) -> str:
    """A table with a line for each row, in an order that does not depend on that of the rows."""
    return table(_HEAD, map(_cells, sorted(rows, key=_place)))


def _place(row: Row) -> tuple[str, str, str]:
    return row["part"].lower(), row["works"], row["test"]


def _cells(row: Row) -> list[str]:
    link = f"[{Path(row['test']).stem}](../{row['test']})"
    return [row["part"], row["version"], row["works"], link]


def main() -> None:
    record, page = map(Path, sys.argv[1:])
    page.write_text(replaced(page.read_text(), BEGIN, END, render(json.loads(record.read_text()))))


if __name__ == "__main__":
    main()
