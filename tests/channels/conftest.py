"""The log of a test of channels."""

import logging

import pytest

from .logged import Log


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    caplog.set_level(logging.DEBUG, "adsum")
    return Log(caplog)
