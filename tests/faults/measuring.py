"""What a run of the faults measured, and the file that keeps it for the documentation."""

import json
import os
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

#: Names the file to write; nothing is written without it.
RECORD = "ADSUM_RECORD"


class Row(TypedDict):
    """One figure: what was broken, what the others saw of it, and how long or how much it was."""

    fault: str
    test: str
    sees: str
    unit: str
    values: list[float]
    low: float
    median: float
    high: float


class Record:
    """The rows of one run of the tests."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def save(self) -> None:
        """Write the rows to the file that the environment names, if it names one."""
        if name := os.environ.get(RECORD):
            Path(name).write_text(json.dumps(self.rows, indent=2) + "\n")


class Measured:
    """Takes in what one test measures.

    Args:
        record: Where to.
        test: The id of the test.
    """

    def __init__(self, record: Record, test: str) -> None:
        self._record = record
        self._test = test

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
                self._record.rows.append(_row(fault, self._test, sees, unit, values))


def _row(fault: str, test: str, sees: str, unit: str, values: list[float]) -> Row:
    return {
        "fault": fault,
        "test": test,
        "sees": sees,
        "unit": unit,
        "values": values,
        "low": min(values),
        "median": statistics.median(values),
        "high": max(values),
    }
