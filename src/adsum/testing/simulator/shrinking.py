"""Shrinking: shorten a failing sequence of steps by leaving parts out while it still fails.

Delta debugging (Zeller, Hildebrandt: *Simplifying and isolating failure-inducing input*, 2002)
with complements only. It requires that a step that is not possible does nothing.
"""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def shorten(
    steps: tuple[T, ...], fails: Callable[[tuple[T, ...]], bool], most_runs: int
) -> tuple[T, ...]:
    """Return the shortest part of some steps, of those tried, that still fails.

    Args:
        steps: Steps that fail.
        fails: Returns whether a part of the steps, in their order, fails.
        most_runs: The number of calls of `fails` after which the shortest part so far is returned.
    """
    runs = iter(range(most_runs))
    size = max(1, len(steps) // 2)
    while True:
        for start in range(0, len(steps), size):
            rest = steps[:start] + steps[start + size :]
            if next(runs, None) is None:
                return steps
            if fails(rest):
                steps = rest
                break
        else:
            if size == 1:
                return steps
            size = max(1, size // 2)
