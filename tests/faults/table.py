"""The measured faults as a table: ``python -m tests.faults.table FILE.json PAGE.md``."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.pages import replaced, table

from tests.support.measurements import SOCKETS, Row

BEGIN = "<!-- measured: begin -->"
END = "<!-- measured: end -->"
_HEAD = ["fault", "effect on the others", "links over", "low, median, high", "times", "test"]


def render(rows: Iterable[Row]) -> str:
    """A table with a line for each row, in an order that does not depend on that of the rows."""
    return table(_HEAD, map(_cells, sorted(rows, key=_place)))


def _place(row: Row) -> tuple[object, ...]:
    """By the fault, so what differs by the carrier is side by side; sockets are first."""
    over = (row["over"] != SOCKETS, row["over"])
    return row["fault"], row["sees"], over, row["unit"], row["test"]


def _cells(row: Row) -> list[str]:
    what = [row["fault"], row["sees"], row["over"]]
    return [*what, _figures(row), str(row["count"]), _link(row["test"])]


def _link(test: str) -> str:
    """A link from a page in `docs` to the file of a test; the record has the test's whole id."""
    path = test.partition("::")[0]
    return f"[{Path(path).stem}](../{path})"


def _figures(row: Row) -> str:
    figures = [row["low"], row["median"], row["high"]]
    if row["count"] == 1:
        figures = figures[:1]
    return f"{', '.join(map(_short, figures))} {row['unit']}"


def _short(figure: float) -> str:
    """With three digits, or all those before the point."""
    return f"{figure:.0f}" if abs(figure) >= 100 else f"{figure:.3g}"


def main() -> None:
    record, page = map(Path, sys.argv[1:])
    page.write_text(replaced(page.read_text(), BEGIN, END, render(json.loads(record.read_text()))))


if __name__ == "__main__":
    main()
