"""The pytest plugin with the fixture ``cluster``, active wherever adsum is installed.

pytest imports this module in each of its runs, including those that do not use adsum. So it is
outside the package and imports nothing of the package before the fixture is used.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from adsum.testing import Cluster, MakeCluster


@pytest.fixture
def cluster() -> "Iterator[MakeCluster]":
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
    from adsum.testing import Cluster

    with ExitStack() as stack:

        def make(nodes: int, *, seed: int = 0, **settings: Any) -> "Cluster":
            return stack.enter_context(Cluster(nodes, seed=seed, **settings))

        yield make
