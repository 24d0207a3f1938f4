"""Wait until a condition holds, with one deadline for all tests; and limits of time.

`until` is for tests in an event loop, `eventually` for tests that block. Both look at the condition
again and again, return its first true answer, and fail with a message after `DEADLINE`.
"""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

#: Seconds after which an expected event counts as missing; far more than any takes, because the
#: machine may be busy. A test that passes never waits this long.
DEADLINE = 30.0
#: Seconds between two looks at a condition within this process.
PAUSE = 0.002
#: Seconds between two looks at a condition that asks another process.
LONG_PAUSE = 0.01
#: Attempts to meet a limit of time.
ATTEMPTS = 4


async def until(condition: Callable[[], Any], what: str = "") -> Any:
    """Wait until a condition is true, and return its answer.

    Args:
        condition: A function, or a coroutine function.
        what: The expected event, for the message of a failure.

    Raises:
        AssertionError: The condition did not become true within `DEADLINE`.
    """
    try:
        async with asyncio.timeout(DEADLINE) as limit:
            while True:
                pause, answer = PAUSE, condition()
                if inspect.isawaitable(answer):
                    pause, answer = LONG_PAUSE, await answer
                if answer:
                    return answer
                await asyncio.sleep(pause)
    except TimeoutError:
        if not limit.expired():  # the condition raised it
            raise
        raise AssertionError(_missing(condition, what)) from None


def eventually(condition: Callable[[], Any], what: str = "") -> Any:
    """Block until a condition is true, and return its answer.

    Args:
        condition: A function; `functools.partial` gives it arguments.
        what: The expected event, for the message of a failure.

    Raises:
        AssertionError: The condition did not become true within `DEADLINE`.
    """
    give_up_at = time.monotonic() + DEADLINE
    while not (answer := condition()):
        assert time.monotonic() < give_up_at, _missing(condition, what)
        time.sleep(LONG_PAUSE)
    return answer


def assert_within(seconds: float, attempt: Callable[[], float]) -> None:
    """Check a limit of time: a busy machine delays some attempts, a fault delays each of them.

    Args:
        seconds: The limit.
        attempt: Returns how many seconds the event took.
    """
    taken: list[float] = []
    while not taken or taken[-1] >= seconds:
        assert len(taken) < ATTEMPTS, f"not within {seconds:g} s in {len(taken)} attempts: {taken}"
        taken.append(attempt())


def _missing(condition: Callable[[], Any], what: str) -> str:
    return f"not within {DEADLINE:g} s: {what or condition}"
