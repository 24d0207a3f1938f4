"""The HTTP clients that are tested."""

import pytest

from .clients import CLIENTS, Client


@pytest.fixture(params=CLIENTS, ids=lambda client: client.__name__)
def client_type(request: pytest.FixtureRequest) -> type[Client]:
    """Each client."""
    found: type[Client] = request.param
    return found
