"""A node warns before its process runs out of file descriptors, and does not repeat itself."""

import logging
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

import adsum
from adsum.driver import socketdriver
from adsum.driver.openfiles import (
    RESERVE,
    SAMPLES,
    WARNING_INTERVAL,
    OpenFiles,
    open_files,
    soft_limit,
)
from tests.support.nodes import run
from tests.support.waiting import until

Limit = Callable[[int], None]


@pytest.fixture
def limit() -> Iterator[Limit]:
    """Sets the soft limit of this process, until the end of the test."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda count: resource.setrlimit(resource.RLIMIT_NOFILE, (count, most))
    resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


@contextmanager
def opened(count: int) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(count):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        yield


def in_use() -> int:
    limit = soft_limit()
    assert limit is not None
    return open_files(limit)


def test_open_files_are_counted_exactly_below_a_limit_of_as_many_samples(limit: Limit) -> None:
    limit(SAMPLES)
    before = in_use()
    with opened(100):
        assert in_use() == before + 100
    assert in_use() == before


def test_open_files_are_estimated_above() -> None:
    with opened(500):
        exact = open_files(SAMPLES)
        for step in (2, 4, 20):
            assert open_files(step * SAMPLES) == pytest.approx(exact, abs=step)


def test_limit_too_low_for_the_peers_is_logged_at_the_start(
    limit: Limit, caplog: pytest.LogCaptureFixture
) -> None:
    limit(SAMPLES)
    room = SAMPLES - in_use() - RESERVE
    files = OpenFiles("node")

    files.check_start(room)
    assert not caplog.records
    files.check_start(room + 1)

    [record] = caplog.records
    assert record.levelno == logging.WARNING
    for text in ("node: ", "open files is 1024", f"{room + 1} peers", "ulimit -n", "LimitNOFILE"):
        assert text in record.getMessage()


def test_process_close_to_the_limit_warns_at_most_once_a_minute(
    limit: Limit, caplog: pytest.LogCaptureFixture
) -> None:
    limit(SAMPLES)
    files = OpenFiles("node")
    with opened(int(0.79 * SAMPLES) - in_use()):
        files.check(0.0)
        assert not caplog.records
        with opened(20):
            for now in (1.0, 2.0, 1.0 + WARNING_INTERVAL - 0.1):
                files.check(now)
            assert len(caplog.records) == 1
            files.check(1.0 + WARNING_INTERVAL)
        assert len(caplog.records) == 2
        files.check(10 * WARNING_INTERVAL)
    assert len(caplog.records) == 2
    assert "of 1024 files are open" in caplog.text


def test_unlimited_open_files_log_no_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr("resource.getrlimit", lambda _: unlimited)
    files = OpenFiles("node")

    files.check_start(10**9)
    files.check(0.0)

    assert not caplog.records


def test_node_checks_open_files_at_the_start_and_while_it_runs(
    limit: Limit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(socketdriver, "CHECK_INTERVAL", 0.02)

    async def main() -> None:
        peers = [f"127.0.0.1:{port}" for port in range(1, 346)]
        # Beside the files opened here there are those of the process, and of 64 dials at most.
        async with adsum.Node(siblings=False, peers=peers, join_timeout=0):
            await until(lambda: "too low for" in caplog.text)
            with opened(326):
                await until(lambda: "files are open" in caplog.text)

    limit(420)
    with caplog.at_level(logging.WARNING):
        run(main())
    assert "345 peers" in caplog.text
