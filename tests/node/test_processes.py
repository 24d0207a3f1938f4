"""Real processes, killed and stopped for real: what the others see, and how soon.

Times are asserted only against what the protocol promises, with room for a busy machine.
"""

import itertools
import re
import signal
import subprocess
import sys
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_port
from tests.support.waiting import DEADLINE, assert_within, eventually
from tests.support.worker_processes import Worker, Workers, sibling_sockets

pytestmark = pytest.mark.processes


def cluster_of(workers: Workers, count: int, **settings: Any) -> list[Worker]:
    """Workers that know each other, each with its number on the topic room."""
    started = [workers.start(**settings) for _ in range(count)]
    for number, worker in enumerate(started):
        worker.ask("track", "room", f"user {number}", {})
    everybody = [f"user {number}" for number in range(count)]
    for worker in started:
        eventually(partial(worker.lists, *everybody), "they agree")
    return started


def test_three_processes_converge_within_milliseconds(cluster_name: str) -> None:
    with Workers() as workers:
        first, *others = cluster_of(workers, 3, cluster=cluster_name)

        def join(key: str) -> float:
            began = time.monotonic()
            first.ask("track", "room", key, {"device": "phone"})
            seen = [eventually(partial(one.joined, key), "the join is seen") for one in others]
            return float(max(seen) - began)

        join("ann")
        guests = itertools.count()
        assert_within(0.5, lambda: join(f"guest {next(guests)}"))
        first.ask("update", "room", "ann", {"device": "laptop"})
        for other in others:
            eventually(partial(other.updated, "ann"), "the update is seen")
            assert other.left("ann") is None


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_killed_process_leaves_within_a_second(cluster_name: str, transport: str) -> None:
    with Workers() as workers:
        if transport == "unix":
            others = cluster_of(workers, 2, cluster=cluster_name)
            settings: dict[str, Any] = {"cluster": cluster_name}
        else:
            port = free_port()
            tcp: dict[str, Any] = {"cluster": cluster_name, "siblings": False}
            settings = {**tcp, "listen": "127.0.0.1:0", "peers": f"127.0.0.1:{port}"}
            others = [workers.start(**tcp, listen=f"127.0.0.1:{port}"), workers.start(**settings)]
        lives = itertools.count()

        def attempt() -> float:
            victim, key = workers.start(**settings), f"life {next(lives)}"
            victim.ask("track", "room", key, {})
            for other in others:
                eventually(partial(other.joined, key), "the join is seen")
            for other in others:
                eventually(partial(has_link, other, victim), "they are linked")
            killed = victim.signal(signal.SIGKILL)
            seen = [eventually(partial(one.left, key), "the leave is seen") for one in others]
            return float(max(seen) - killed)

        assert_within(1.0, attempt)


def test_paused_process_is_hidden_then_back_and_hides_no_peer(cluster_name: str) -> None:
    fast = {"heartbeat_interval": 0.2, "down_after": 3.0}
    with Workers() as workers:
        victim, *others = cluster_of(workers, 3, cluster=cluster_name, **fast)
        stopped = victim.signal(signal.SIGSTOP)
        for other in others:
            left = eventually(partial(other.left, "user 0"), "the leave is seen")
            assert 2.0 < left - stopped < 6.0  # not by the silence that is usual, of 6 s
        seen = len(victim.diffs)
        back = victim.signal(signal.SIGCONT)
        for other in others:
            eventually(partial(other.joined_after, "user 0", back), "it is back")
        time.sleep(3.5)  # longer than `down_after`
        assert victim.ask("list", "room") == ["user 0", "user 1", "user 2"]
        assert [d for _, d in victim.diffs[seen:] if d[2]] == []


def test_blocked_loop_hides_no_peer_on_resume(cluster_name: str) -> None:
    fast = {"heartbeat_interval": 0.2, "down_after": 2.0}
    with Workers() as workers:
        victim, *others = cluster_of(workers, 3, cluster=cluster_name, **fast)
        seen = len(victim.diffs)
        victim.ask("block", 4.0)
        for other in others:
            eventually(partial(other.lists, "user 0", "user 1", "user 2"), "it is back")
        time.sleep(2.5)  # longer than `down_after`
        assert victim.ask("list", "room") == ["user 0", "user 1", "user 2"]
        assert [d for _, d in victim.diffs[seen:] if d[2]] == []


def test_restarted_process_replaces_its_old_incarnation_without_ghosts(cluster_name: str) -> None:
    with Workers() as workers:
        [witness] = cluster_of(workers, 1, cluster=cluster_name)
        for life in range(3):
            worker = workers.start(cluster=cluster_name, name="worker")
            worker.ask("track", "room", f"life {life}", {})
            eventually(
                partial(witness.lists, f"life {life}", "user 0"), "the new life is shown alone"
            )
            worker.signal(signal.SIGKILL)
        eventually(partial(witness.lists, "user 0"), "no ghost stays")


def test_sockets_of_dead_processes_are_cleaned_up(cluster_name: str) -> None:
    with Workers() as workers:
        first, second = cluster_of(workers, 2, cluster=cluster_name)
        for worker in (first, second):
            worker.signal(signal.SIGKILL)
            worker.process.wait()
        assert len(sibling_sockets(cluster_name)) > 0
        cluster_of(workers, 1, cluster=cluster_name)
        eventually(partial(only_one_socket, cluster_name), "stale sockets are gone")


def test_large_catch_up_blocks_neither_side(cluster_name: str) -> None:
    count = 100_000
    with Workers() as workers:
        owner = workers.start(cluster=cluster_name)
        owner.ask("track_many", "big", count)
        owner.ask("stall")
        newcomer = workers.start(cluster=cluster_name)
        began = time.monotonic()
        newcomer.ask("stall")
        counts = set[int]()
        while (seen := newcomer.ask("count", "big")) != count:
            counts.add(seen)
            assert time.monotonic() - began < DEADLINE
        assert counts <= {0}, "a part of the transfer was shown"
        stalls = owner.ask("stall"), newcomer.ask("stall")
        print(f"transfer {time.monotonic() - began:.2f} s, longest stalls {stalls}")


APPLICATION = """
import os
import adsum
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

node = adsum.Node()
presence = adsum.Presence(node)

async def workers(request):
    return JSONResponse({"pid": os.getpid(), "workers": sorted(presence.list("workers"))})

async def here(app):
    yield

from contextlib import asynccontextmanager

@asynccontextmanager
async def lifespan(app):
    presence.track("workers", str(os.getpid()), owner=None)
    yield

app = Starlette(routes=[Route("/", workers)], lifespan=node.wrap_lifespan(lifespan))
"""


def test_uvicorn_workers_form_one_cluster_and_two_applications_never_merge(
    tmp_path: Path,
) -> None:
    applications = []
    try:
        for name in ("chat", "mail"):
            home = tmp_path / name
            home.mkdir()
            (home / "app.py").write_text(APPLICATION)
            port = free_port()
            run = [sys.executable, "-m", "uvicorn", "app:app", "--workers", "4"]
            log = home / "log"
            with log.open("w") as output:
                process = subprocess.Popen(
                    [*run, "--port", str(port), "--log-level", "warning"],
                    cwd=home,
                    stdout=output,
                    stderr=output,
                )
            applications.append((process, port, log))
        answers = [
            eventually(partial(answer, port), "the workers find each other")
            for _, port, _ in applications
        ]
        assert set(answers[0]).isdisjoint(answers[1])
    finally:
        for process, _, _ in applications:
            process.terminate()
        for process, _, _ in applications:
            process.wait(timeout=DEADLINE)
    assert [log.read_text() for _, _, log in applications] == ["", ""]


def has_link(one: Worker, other: Worker) -> bool:
    return other.name in one.ask("linked")


def only_one_socket(cluster: str) -> bool:
    return len(sibling_sockets(cluster)) == 1


def answer(port: int) -> list[str] | None:
    """What one of the workers says who they are, once there are four."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as response:
            workers: list[str] = re.findall(r'"(\d+)"', response.read().decode())
    except OSError:
        return None
    return workers if len(workers) == 4 else None
