"""How hard Hypothesis tries: as much as a test says, times what the environment says."""

import os

from hypothesis import settings

#: `make soak` tries harder than the tests do every day.
EFFORT = max(1, int(os.environ.get("TEST_EFFORT", "1")))


def examples(count: int, steps: int = 50) -> settings:
    """Settings for so many examples, none of which is timed, as the machine may be busy.

    Args:
        count: How many examples there are every day.
        steps: How many steps a state machine takes in each.
    """
    return settings(max_examples=count * EFFORT, stateful_step_count=steps, deadline=None)
