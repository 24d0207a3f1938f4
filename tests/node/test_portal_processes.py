"""Portals in real processes: forks after the first use, goodbyes at the exit, Flask in gunicorn."""

import importlib.util
import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import adsum
from tests.support.environment import clean_environment
from tests.support.ports import free_port
from tests.support.waiting import DEADLINE, eventually
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


def get(url: str, method: str = "GET") -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=30) as answer:
        return json.loads(answer.read())


def answers(url: str) -> Callable[[], bool]:
    def look() -> bool:
        try:
            return get(f"{url}/list") is not None
        except OSError:
            return False

    return look


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("flask", "gunicorn"))), reason="needs flask, gunicorn"
)
def test_gunicorn_workers_list_presences_of_all_threads_identically(cluster_name: str) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "gunicorn", "-w", "2", "--threads", "4", "--preload"]
    command += ["-b", f"127.0.0.1:{port}", "--no-control-socket", "tests.node.portal_app:app"]
    server = subprocess.Popen(
        command,
        env={**clean_environment(), "ADSUM_CLUSTER": cluster_name},
        cwd=SCRIPT.parents[2],
    )
    with adsum.Portal(adsum.Node(cluster=cluster_name)) as portal:
        try:
            eventually(answers(url), "the server answers")
            with ThreadPoolExecutor(8) as threads:
                urls = [f"{url}/track/user-{number}" for number in range(40)]
                workers = set(threads.map(lambda each: get(each, "POST"), urls))
            lists = {}

            def all_listed() -> bool:
                answer = get(f"{url}/list")
                lists[answer["pid"]] = answer["room"]
                full = [keys for keys in lists.values() if len(keys) == 40]
                return len(full) == 2

            eventually(all_listed, "both workers list everybody")
            assert workers <= lists.keys()
            first, second = lists.values()
            assert first == second
            assert portal.count("room") == 40
            server.send_signal(signal.SIGTERM)
            assert server.wait(DEADLINE) == 0
            eventually(lambda: portal.count("room") == 0, "both workers have said goodbye")
            members = portal.call(portal.node.members)
            assert [member.status for member in members if member.status == "down"] == []
        finally:
            server.kill()
            server.wait()
