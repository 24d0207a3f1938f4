"""Event loops that are closed in the midst of their work, without `stop` of a node."""

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

NewLoop = Callable[[], asyncio.AbstractEventLoop]

#: Marks for a module: asyncio warns of tasks and connections whose loop was closed under them.
closed_loop_warnings = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def collect_closed_loops() -> Iterator[None]:
    """Free closed loops within the test that made them."""
    yield
    gc.collect()


def run_and_close(main: Coroutine[Any, Any, None], make: NewLoop = asyncio.new_event_loop) -> None:
    """Run a coroutine to its end in a loop, and close the loop while other tasks still run."""
    loop = make()
    try:
        loop.run_until_complete(main)
    finally:
        loop.close()
