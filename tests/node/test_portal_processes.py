"""Portals in real processes: forks after the first use, and goodbyes at the exit."""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import adsum
from tests.support.environment import clean_environment
from tests.support.waiting import DEADLINE
from tests.support.worker_processes import python

pytestmark = pytest.mark.processes

SCRIPT = Path(__file__).with_name("portal_worker.py")


def run(cluster: str, program: str) -> Any:
    """The output of a program with a portal, as JSON; None if it printed nothing."""
    ended = subprocess.run(
        python(SCRIPT, program),
        env={**clean_environment(), "ADSUM_CLUSTER": cluster},
        timeout=DEADLINE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert not ended.stderr, ended.stderr
    return json.loads(ended.stdout or "null")


def test_script_publishes_and_says_goodbye_at_its_exit(cluster_name: str) -> None:
    # Without a goodbye these settings would hide the end of the script for minutes.
    patient = adsum.Node(cluster=cluster_name, down_after=600.0, link_grace=600.0)
    with adsum.Portal(patient) as portal, ThreadPoolExecutor(1) as threads:
        messages, watch = portal.subscribe("room", timeout=30), portal.watch("room", timeout=30)
        left = threads.submit(lambda: any("script" in diff.leaves for diff in watch))
        assert run(cluster_name, "publish") is None
        assert next(messages).payload == {"from": "script"}
        assert left.result(DEADLINE)


def test_messages_of_a_command_that_exits_at_once_arrive_everywhere(cluster_name: str) -> None:
    with (
        adsum.Portal(adsum.Node(cluster=cluster_name)) as one,
        adsum.Portal(adsum.Node(cluster=cluster_name)) as other,
    ):
        readers = [portal.subscribe("room", timeout=DEADLINE) for portal in (one, other)]
        assert run(cluster_name, "publish_many") is None
        for messages in readers:
            numbers = [next(messages).payload["number"] for _ in range(500)]
            assert numbers == list(range(500))


def test_child_of_multiprocessing_has_a_node_of_its_own_and_says_goodbye(cluster_name: str) -> None:
    report = run(cluster_name, "mp")
    assert len(set(report["names"])) == 2
    assert report["keys"] == ["child", "parent"]
    assert report["left"] == ["child"]


def test_child_of_fork_starts_a_node_at_its_first_use_only(cluster_name: str) -> None:
    report = run(cluster_name, "os")
    assert len(set(report["names"])) == 2
    assert not report["active"]
    assert report["watch"] == []
    assert not report["started"]
    assert report["keys"] == ["parent"]
    assert report["still"] == [True, ["parent"]]
