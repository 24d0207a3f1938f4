"""Tables of compatibility in pages: ``python -m tests.compat FILE.json PAGE.md ...``."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.pages import replaced, table

from tests.support.compatibility import Cell


def begin(name: str) -> str:
    """The line before a table."""
    return f"<!-- compat {name}: begin -->"


def end(name: str) -> str:
    """The line after it."""
    return f"<!-- compat {name}: end -->"


def render(name: str, cells: Iterable[Cell]) -> str:
    """A table; an empty cell is one that its row has no figure for."""
    own = [cell for cell in cells if cell["table"] == name]
    columns = list(dict.fromkeys(cell["column"] for cell in own))
    rows = dict.fromkeys(cell["row"] for cell in own)
    texts = {(cell["row"], cell["column"]): cell["text"] for cell in own}
    lines = ([row, *(texts.get((row, column), "") for column in columns)] for row in rows)
    return table([name, *columns], lines)


def with_tables(page: str, cells: list[Cell]) -> str:
    """The page with each table for which it has a place."""
    for name in dict.fromkeys(cell["table"] for cell in cells):
        if begin(name) in page:
            page = replaced(page, begin(name), end(name), render(name, cells))
    return page


def main() -> None:
    record, *pages = map(Path, sys.argv[1:])
    cells = json.loads(record.read_text())
    for page in pages:
        page.write_text(with_tables(page.read_text(), cells))


if __name__ == "__main__":
    main()
