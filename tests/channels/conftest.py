"""The log of a test of channels, and the ways to carry its connections."""

import logging

import pytest

from . import asgi_client, served_app
from .captured_log import Log


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    caplog.set_level(logging.DEBUG, "adsum")
    return Log(caplog)


@pytest.fixture(params=["asgi", "direct"])
def each_carrier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test twice: over messages of ASGI, and over direct connections."""
    if request.param == "direct":
        monkeypatch.setattr(asgi_client, "DIRECT", True)
        monkeypatch.setattr(served_app, "WS", "adsum.channels.uvicorn:WebSocketProtocol")
