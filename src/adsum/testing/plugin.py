"""The pytest plugin: a fixture ``cluster`` for whoever has adsum installed."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest

from .cluster import Cluster


class MakeCluster(Protocol):
    """What the fixture `cluster` is."""

    def __call__(self, nodes: int, *, seed: int = 0, **settings: Any) -> Cluster:
        """A cluster of so many nodes; see `adsum.testing.Cluster`."""


@pytest.fixture
def cluster() -> Iterator[MakeCluster]:
    """Make clusters of real nodes on a simulated network; they are closed after the test.

    Example:
        def test_a_user_of_a_dead_worker_leaves(cluster):
            workers = cluster(3)
            workers[0].presence.track("room:1", "ann", owner=None)
            workers.settle()
            workers.assert_online("room:1", "ann")
            workers.kill(0)
            workers.settle()
            workers.assert_online("room:1")
    """
    with ExitStack() as stack:

        def make(nodes: int, *, seed: int = 0, **settings: Any) -> Cluster:
            return stack.enter_context(Cluster(nodes, seed=seed, **settings))

        yield make
