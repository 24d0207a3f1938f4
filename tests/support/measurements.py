"""What a run of the faults measured, and the file that keeps it for the documentation."""

import json
import os
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

#: Names the file to write; nothing is written without it.
RECORD = "TEST_RECORD"
#: Carries the links of nodes that have no carrier.
SOCKETS = "sockets"


class Row(TypedDict):
    """One figure: what was broken, what the others saw of it, and how long or how much it was."""

    fault: str
    test: str
    sees: str
    over: str
    unit: str
    count: int
    low: float
    median: float
    high: float


class Record:
    """What one run of the tests measured."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str, str, str, str], list[float]] = {}

    def add(
        self, fault: str, test: str, sees: str, over: str, unit: str, values: list[float]
    ) -> None:
        """Keep figures, with those of the same kind."""
        self._values.setdefault((fault, test, sees, over, unit), []).extend(values)

    @property
    def rows(self) -> list[Row]:
        """A row for each kind of figure."""
        return [_row(*kind, values) for kind, values in self._values.items()]

    def save(self) -> None:
        """Write the rows to the file that the environment names, if it names one."""
        if name := os.environ.get(RECORD):
            rows = ",\n".join(json.dumps(row) for row in self.rows)
            Path(name).write_text(f"[\n{rows}\n]\n")


class Measured:
    """Takes in what one test measures.

    Args:
        record: Where to.
        test: The id of the test; those that differ only in a parameter are one.
        over: What carries the links of the nodes.
    """

    def __init__(self, record: Record, test: str, over: str = SOCKETS) -> None:
        self._record = record
        self._test = test.partition("[")[0]
        self._over = over

    def __call__(
        self, *, fault: str, sees: str, seconds: Iterable[float] = (), **other: Iterable[float]
    ) -> None:
        """Keep figures of one kind.

        Args:
            fault: What was broken.
            sees: What the figures are: what the others see after so many seconds.
            seconds: The figures, if they are durations.
            other: The figures, if they are not, by their unit, as `MB=[1.5]`.
        """
        for unit, figures in {"s": list(seconds), **other}.items():
            if values := list(figures):
                self._record.add(fault, self._test, sees, self._over, unit, values)


def recording() -> bool:
    """Whether what is measured is written down, so that a spread is worth its time."""
    return RECORD in os.environ


def _row(fault: str, test: str, sees: str, over: str, unit: str, values: list[float]) -> Row:
    return {
        "fault": fault,
        "test": test,
        "sees": sees,
        "over": over,
        "unit": unit,
        "count": len(values),
        "low": round(min(values), 5),
        "median": round(statistics.median(values), 5),
        "high": round(max(values), 5),
    }
