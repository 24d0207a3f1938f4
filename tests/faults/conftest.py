"""What every test of a fault stands on: processes and networks that end with it."""

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.worker_processes import Workers

from .carriers import Carrier
from .cluster import Cluster
from .namespaces import Network, need_namespaces
from .node_launcher import Launcher

_serial = itertools.count()


@pytest.fixture(autouse=True)
def _runtime_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A short path for the sockets of nodes, as killed processes leave theirs behind."""
    with tempfile.TemporaryDirectory(prefix="adsum-") as path:
        monkeypatch.setenv("ADSUM_RUNTIME_DIR", path)
        yield


@pytest.fixture
def unique_name() -> str:
    """A name that nobody else on this machine has."""
    return f"adsum-{os.getpid()}-{next(_serial)}"


@pytest.fixture
def carrier(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Carrier | None]:
    """Starts servers that end with the test; None for links over sockets."""
    name: str | None = getattr(request, "param", None)
    with ExitStack() as stack:
        yield Carrier(name, tmp_path, stack) if name is not None else None


@pytest.fixture
def cluster(unique_name: str, carrier: Carrier | None) -> Iterator[Callable[..., Cluster]]:
    """Makes a cluster, with the settings of its nodes; its processes end with the test."""
    with Workers() as workers:

        def make(**settings: Any) -> Cluster:
            return Cluster(workers, carrier, cluster=unique_name, **settings)

        yield make


@pytest.fixture
def network(unique_name: str, carrier: Carrier | None) -> Iterator[Callable[[int], Network]]:
    """Makes a network of some hosts, and one more for the carrier's server; goes with the test."""
    need_namespaces()
    more = carrier is not None
    with ExitStack() as stack:
        yield lambda count: stack.enter_context(Network(unique_name, count + more))


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    """Forks processes with nodes; all end with the test."""
    with Launcher() as launcher:
        yield launcher
