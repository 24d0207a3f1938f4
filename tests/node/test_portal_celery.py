"""A portal in the children of a real Celery worker: forks, recycled children, goodbyes, kills."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import adsum
from tests.support.environment import clean_environment
from tests.support.waiting import DEADLINE, eventually

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
CELERY = [sys.executable, "-m", "celery", "-A", "tests.node.celery_tasks"]
WORKER = ["worker", "--concurrency", "2", "-l", "error", "--without-gossip", "--without-mingle"]


class Celery:
    """One worker with two children, and its client."""

    def __init__(self, folder: Path, cluster: str, *options: str) -> None:
        (folder / "control").mkdir()
        settings = {"BROKER_FOLDER": str(folder), "ADSUM_CLUSTER": cluster}
        self._environment = {**clean_environment(), **settings}
        self.worker = subprocess.Popen(
            [*CELERY, *WORKER, *options], env=self._environment, cwd=ROOT
        )

    def send(self, task: str, *keys: str) -> None:
        """Queue a task for each key, in another process."""
        script = f"from tests.node.celery_tasks import {task} as task\n"
        script += f"for key in {keys!r}: task.delay(key)"
        command = [sys.executable, "-c", script]
        subprocess.run(command, env=self._environment, cwd=ROOT, check=True, timeout=DEADLINE)


@contextmanager
def celery(folder: Path, cluster: str, *options: str) -> Iterator[Celery]:
    one = Celery(folder, cluster, *options)
    try:
        yield one
    finally:
        one.worker.kill()  # its children are killed with it
        one.worker.wait()


def statuses(portal: adsum.Portal) -> list[str]:
    return [member.status for member in portal.call(portal.node.members)]


def pids(portal: adsum.Portal) -> dict[str, Any]:
    return {key: entry["metas"][0]["pid"] for key, entry in portal.list("room").items()}


def test_children_that_come_and_go_say_goodbye(tmp_path: Path, cluster_name: str) -> None:
    # Without goodbyes these settings would hide the ends of the children for minutes.
    patient = adsum.Node(cluster=cluster_name, down_after=600.0, link_grace=600.0)
    keys = [f"task-{number}" for number in range(5)]
    with (
        adsum.Portal(patient) as portal,
        celery(tmp_path, cluster_name, "--max-tasks-per-child", "2") as one,
    ):
        messages = portal.subscribe("room", timeout=DEADLINE)
        one.send("enter", *keys)
        ran = [next(messages).payload for _ in keys]
        assert sorted(each["key"] for each in ran) == keys
        assert len({each["pid"] for each in ran}) >= 3
        eventually(lambda: len(pids(portal)) in (0, 1), "children that were recycled have left")
        one.worker.send_signal(signal.SIGTERM)
        eventually(lambda: pids(portal) == {}, "the others have left")
        assert "down" not in statuses(portal)


def test_killed_child_is_down_and_the_other_one_stays(tmp_path: Path, cluster_name: str) -> None:
    with (
        adsum.Portal(adsum.Node(cluster=cluster_name)) as portal,
        celery(tmp_path, cluster_name) as one,
    ):
        one.send("wait", "ann", "bob")
        running = eventually(lambda: len(pids(portal)) == 2 and pids(portal), "both tasks run")
        os.kill(running["ann"], signal.SIGKILL)
        eventually(lambda: pids(portal) == {"bob": running["bob"]}, "ann has left")
        assert statuses(portal).count("down") == 1
        one.worker.kill()
        eventually(lambda: pids(portal) == {}, "the other child is killed with its worker")
