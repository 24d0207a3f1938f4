"""What every test of a fault stands on: processes and networks that end with it."""

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.worker_processes import Workers

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
def cluster(unique_name: str) -> Iterator[Callable[..., Cluster]]:
    """Makes a cluster, with the settings of its nodes; its processes end with the test."""
    with Workers() as workers:

        def make(**settings: Any) -> Cluster:
            return Cluster(workers, cluster=unique_name, **settings)

        yield make


@pytest.fixture
def network(unique_name: str) -> Iterator[Callable[[int], Network]]:
    """Makes a network of some hosts, which goes with the test."""
    need_namespaces()
    with ExitStack() as stack:
        yield lambda count: stack.enter_context(Network(unique_name, count))


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    """Forks processes with nodes; all end with the test."""
    with Launcher() as launcher:
        yield launcher
