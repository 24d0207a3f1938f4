"""Waiting for what must happen, with a deadline."""

import time
from collections.abc import Callable
from typing import Any

#: Seconds after which what must happen has not; far more than it takes, for busy machines.
PATIENCE = 20.0


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Ask until the answer is true; returns it."""
    give_up_at = time.monotonic() + PATIENCE
    while True:
        if answer := condition():
            return answer
        assert time.monotonic() < give_up_at, f"not within {PATIENCE:g} s: {what}"
        time.sleep(0.02)
