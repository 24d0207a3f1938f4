"""The captured log of one test: lines at level warning and above, or everything."""

import logging

import pytest


class Log:
    """What was logged on ``adsum``, as text."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    @property
    def lines(self) -> list[str]:
        """The lines at level warning and above."""
        return [
            record.getMessage()
            for record in self._caplog.records
            if record.name.startswith("adsum.") and record.levelno >= logging.WARNING
        ]

    @property
    def everything(self) -> str:
        """All that any logger said, with tracebacks."""
        return self._caplog.text

    def clear(self) -> None:
        """Forget what was logged."""
        self._caplog.clear()
