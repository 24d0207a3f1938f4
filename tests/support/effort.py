"""Effort of Hypothesis: as many examples as a test says, times a factor from the environment."""

import os

from hypothesis import settings

#: The factor: less than 1 in `make quick`, more than 1 in `make soak`.
EFFORT = float(os.environ.get("TEST_EFFORT", "1"))


def examples(count: int, steps: int = 50) -> settings:
    """Settings for a number of examples, none of which is timed, as the machine may be busy.

    Args:
        count: How many examples there are at a factor of 1.
        steps: How many steps a state machine takes in each.
    """
    return settings(max_examples=scaled(count), stateful_step_count=steps, deadline=None)


def scaled(count: int) -> int:
    """A number of examples times the factor, at least 1."""
    return max(1, round(count * EFFORT))
