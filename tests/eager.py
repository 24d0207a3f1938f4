"""Event loops whose tasks start eagerly: ``pytest --eager-tasks``, on CPython 3.12 and newer.

An eager task runs up to its first real wait inside `create_task`, so code that relies on a task to
start later fails here. Applications choose it with `asyncio.eager_task_factory`.
"""

import asyncio
import sys

import pytest


def start_tasks_eagerly() -> None:
    """Give every event loop that this process makes the eager task factory.

    Raises:
        pytest.UsageError: This Python has none.
    """
    if sys.version_info >= (3, 12):

        class EagerPolicy(asyncio.DefaultEventLoopPolicy):
            def new_event_loop(self) -> asyncio.AbstractEventLoop:
                loop = super().new_event_loop()
                loop.set_task_factory(asyncio.eager_task_factory)
                return loop

        asyncio.set_event_loop_policy(EagerPolicy())
    else:
        version = sys.version.split()[0]
        raise pytest.UsageError(f"Python {version} has no eager tasks; 3.12 is the first")
