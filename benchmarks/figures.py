"""What a benchmark reports: named samples, with what they are compared to."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from statistics import median
from typing import Any

#: The group of the figure that shows how the speed of the machine varied.
MACHINE = "The machine meanwhile"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured quantity.

    Attributes:
        group: The heading that it belongs under.
        name: What was measured.
        unit: Of the samples.
        samples: One for each repetition.
        original: What the original (Phoenix Presence) shows on the same kind of machine.
        target: What we set out to reach.
    """

    group: str
    name: str
    unit: str
    samples: tuple[float, ...]
    original: str = ""
    target: str = ""

    @property
    def median(self) -> float:
        """The middle of the samples."""
        return median(self.samples)

    @property
    def spread(self) -> str:
        """The lowest and the highest sample."""
        return f"{number(min(self.samples))} to {number(max(self.samples))}"

    def as_json(self) -> dict[str, Any]:
        """Everything, samples included."""
        return {**asdict(self), "median": self.median}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Figure":
        """The figure that `as_json` described."""
        values = {field.name: row[field.name] for field in fields(cls)}
        return cls(**values | {"samples": tuple(row["samples"])})


class Samples:
    """Samples of several sides, to be reported beside each other."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], tuple[str, list[float]]] = {}

    def note(self, what: str, side: str, unit: str, value: float) -> None:
        """Add one sample.

        Args:
            what: Was measured.
            side: The side that it was measured of.
            unit: Of the value.
            value: The sample.
        """
        self._values.setdefault((what, side), (unit, []))[1].append(value)

    def figures(self, group: str) -> list[Figure]:
        """A figure for each measure and side; a measure's sides follow each other."""
        order = list(dict.fromkeys(what for what, _ in self._values))
        rows = sorted(self._values.items(), key=lambda item: order.index(item[0][0]))
        return [
            Figure(group=group, name=f"{what}: {side}", unit=unit, samples=tuple(values))
            for (what, side), (unit, values) in rows
        ]


def percentile(values: Iterable[float], percent: float) -> float:
    """The value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def number(value: float) -> str:
    """Three significant digits, without exponents."""
    if value == 0:
        return "0"
    digits = 2
    size = abs(value)
    while size >= 10 and digits:
        size, digits = size / 10, digits - 1
    while size < 1:
        size, digits = size * 10, digits + 1
    if digits == 0:
        scale = 10 ** max(0, len(str(int(abs(value)))) - 3)
        value = round(value / scale) * scale
    return f"{value:,.{digits}f}"
