"""Lines about the faults of other processes: few, short, and without tracebacks."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def short_log(caplog: pytest.LogCaptureFixture, name: str, most: int) -> Iterator[None]:
    """Check the warnings and errors that are logged in the block.

    Args:
        caplog: The log of the test.
        name: The logger that may have logged them.
        most: The largest number of them.
    """
    caplog.clear()
    yield
    shown = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert {one.name for one in shown} <= {name}
    assert not [one for one in shown if one.exc_text or one.exc_info]
    assert len(shown) <= most
    assert all(len(one.getMessage()) < 700 for one in shown)
