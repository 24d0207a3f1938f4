"""Portals in Flask and in synchronous views of Django, under gunicorn with forked workers."""

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import adsum
from tests.support.environment import clean_environment
from tests.support.ports import free_port
from tests.support.waiting import DEADLINE, eventually

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
KEYS = {f"user-{number}" for number in range(40)}


@contextmanager
def gunicorn(app: str, cluster: str) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """Two workers with four threads each, forked from a master that has used the portal."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-w", "2", "--threads", "4", "--preload"]
    command += ["-b", f"127.0.0.1:{port}", "--no-control-socket", app]
    environment = {**clean_environment(), "ADSUM_CLUSTER": cluster}
    server = subprocess.Popen(command, env=environment, cwd=ROOT)
    try:
        eventually(answers(f"http://127.0.0.1:{port}"), "the server answers")
        yield f"http://127.0.0.1:{port}", server
    finally:
        server.kill()
        server.wait()


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


def track_in_threads(url: str) -> None:
    """Track all keys by requests of eight threads, each key in the worker that answers."""
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda key: get(f"{url}/track/{key}", "POST"), KEYS))


def lists_of_both_workers(url: str) -> list[Any]:
    """The lists of two workers, once both list everybody."""
    lists = {}

    def all_listed() -> bool:
        answer = get(f"{url}/list")
        if answer["room"].keys() == KEYS:
            lists[answer["pid"]] = answer["room"]
        return len(lists) == 2

    eventually(all_listed, "both workers list everybody")
    return list(lists.values())


@pytest.mark.parametrize("app", ["portal_app", "portal_django_app"])
def test_gunicorn_workers_list_presences_of_all_threads_identically(
    cluster_name: str, app: str
) -> None:
    with (
        gunicorn(f"tests.node.{app}:app", cluster_name) as (url, server),
        adsum.Portal(adsum.Node(cluster=cluster_name)) as portal,
    ):
        track_in_threads(url)
        first, second = lists_of_both_workers(url)
        assert first == second
        eventually(lambda: portal.list("room").keys() == KEYS, "so does this process")
        server.send_signal(signal.SIGTERM)
        assert server.wait(DEADLINE) == 0
        eventually(lambda: portal.count("room") == 0, "both workers have said goodbye")
        members = portal.call(portal.node.members)
        assert [member.status for member in members if member.status == "down"] == []
