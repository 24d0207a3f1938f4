"""Cells of the tables of clients, servers and proxies, and the file that keeps them.

`make compat` fills them in. A table that a run does not touch stays as it is.
"""

import json
import os
from pathlib import Path
from typing import TypedDict

#: Set for a run over everything; other runs take one short case of each kind.
WHOLE = "COMPAT"
#: Names the file to write; nothing is written without it.
RECORD = "COMPAT_RECORD"


class Cell(TypedDict):
    """One cell of a table; rows and columns are in the order in which they were first filled."""

    table: str
    row: str
    column: str
    text: str


class CellRecord:
    """The cells that one run of the tests filled in."""

    def __init__(self) -> None:
        self.cells: list[Cell] = []

    def add(self, table: str, row: str, column: str, text: str) -> None:
        """Fill in a cell."""
        self.cells.append({"table": table, "row": row, "column": column, "text": text})

    def save(self) -> None:
        """Write the cells to the file that the environment names, if it names one."""
        if not (name := os.environ.get(RECORD)) or not self.cells:
            return
        path, filled = Path(name), {cell["table"] for cell in self.cells}
        before: list[Cell] = json.loads(path.read_text()) if path.exists() else []
        cells = [*(cell for cell in before if cell["table"] not in filled), *self.cells]
        lines = ",\n".join(json.dumps(cell, ensure_ascii=False) for cell in cells)
        path.write_text(f"[\n{lines}\n]\n")


def is_whole() -> bool:
    """Whether this run is over everything."""
    return bool(os.environ.get(WHOLE))
