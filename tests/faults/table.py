"""The measured faults as a table: ``python -m tests.faults.table FILE.json PAGE.md``."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.support.measurements import Row

BEGIN = "<!-- measured: begin -->"
END = "<!-- measured: end -->"
_HEAD = ["fault", "effect on the others", "low, median, high", "times", "test"]


def render(rows: Iterable[Row]) -> str:
    """A table with a line for each row, in an order that does not depend on that of the rows."""
    ordered = sorted(rows, key=lambda row: (row["fault"], row["sees"], row["unit"], row["test"]))
    lines = [_HEAD, ["---"] * len(_HEAD), *map(_cells, ordered)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def replace(page: str, table: str) -> str:
    """The page with the table between the two lines that mark its place.

    Raises:
        ValueError: The page does not have each of the two lines once, in their order.
    """
    before, begin, rest = page.partition(f"{BEGIN}\n")
    _, end, after = rest.partition(f"{END}\n")
    if not begin or not end or BEGIN in rest or END in before + after:
        raise ValueError(f"the page must have the lines {BEGIN!r} and {END!r} once, in this order")
    return f"{before}{begin}\n{table}\n{end}{after}"


def _cells(row: Row) -> list[str]:
    return [row["fault"], row["sees"], _figures(row), str(row["count"]), _link(row["test"])]


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
    page.write_text(replace(page.read_text(), render(json.loads(record.read_text()))))


if __name__ == "__main__":
    main()
