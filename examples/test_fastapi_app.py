"""Tests of `fastapi_app.py` among other workers, which come, die and are cut off.

    pip install .. pytest fastapi httpx2
    pytest test_fastapi_app.py

The fixture `cluster` comes with adsum. Nothing sleeps: `settle` lets virtual time pass.
"""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

import fastapi_app
from adsum.testing import Cluster, MakeCluster


@pytest.fixture
def workers(cluster: MakeCluster) -> Cluster:
    """Two workers, and the application as a third."""
    workers = cluster(2)
    workers.adopt(fastapi_app.node)
    return workers


@pytest.fixture
def client(workers: Cluster) -> Iterator[TestClient]:
    """A browser that is connected to the application."""
    with TestClient(fastapi_app.app) as client:
        workers.settle()
        yield client


def test_a_user_is_listed_by_every_worker_and_leaves_with_the_connection(
    workers: Cluster, client: TestClient
) -> None:
    with client.websocket_connect("/rooms/1/ann"):
        workers.settle()
        workers.assert_online("room:1", "ann")
    workers.settle()
    workers.assert_online("room:1")


def test_a_user_sees_who_comes_to_another_worker_and_leaves_as_that_one_dies(
    workers: Cluster, client: TestClient
) -> None:
    with client.websocket_connect("/rooms/1/ann") as ann:
        assert list(ann.receive_json()) == ["ann"]
        workers[0].presence.track("room:1", "bob", owner=None)
        workers.settle()
        assert list(ann.receive_json()) == ["ann", "bob"]
        workers.kill(0)
        workers.settle()
        assert list(ann.receive_json()) == ["ann"]


def test_each_side_of_a_split_lists_its_own_until_it_heals(
    workers: Cluster, client: TestClient
) -> None:
    workers[0].presence.track("room:1", "bob", owner=None)
    with client.websocket_connect("/rooms/1/ann"):
        workers.partition([0, 1], [fastapi_app.node])
        workers.settle()
        assert list(client.get("/rooms/1").json()["present"]) == ["ann"]
        workers.assert_online("room:1", "bob", on=[0, 1])
        workers.heal()
        workers.settle()
        assert list(client.get("/rooms/1").json()["present"]) == ["ann", "bob"]
