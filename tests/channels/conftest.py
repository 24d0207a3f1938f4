"""The log of a test of channels."""

import logging

import pytest

from .captured_log import Log


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    caplog.set_level(logging.DEBUG, "adsum")
    return Log(caplog)
