"""What a benchmark reports: named samples, with what they are compared to."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any


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
