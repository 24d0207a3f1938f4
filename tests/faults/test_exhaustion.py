"""No descriptors left in a process, no room left on the disk: what goes on, and what is said."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.environment import clean_environment
from tests.support.measurements import Measured
from tests.support.waiting import eventually
from tests.support.worker_processes import WORKER, python

from .cluster import Cluster, flickers, nobody_leaves, use_up_files, when_joined
from .small_disk import Disk, small_disk

pytestmark = pytest.mark.processes


def test_file_descriptor_exhaustion_keeps_links_and_delays_new_ones(
    cluster: Callable[..., Cluster], measured: Measured, tmp_path: Path
) -> None:
    nodes, log = cluster(), tmp_path / "log"
    ann, poor, times = use_up_files(nodes, log)
    [newcomer] = nodes.start("newcomer")  # They list each other, as ann relays.
    assert newcomer.name not in poor.ask("linked")
    nobody_leaves(2.0, ann, poor, newcomer)
    times += when_joined([ann], "from it again", nodes.track(poor, "from it again"))
    line = "cannot accept: [Errno 24] Too many open files"
    eventually(lambda: line in log.read_text(), "the refusal is logged")
    assert "Traceback" not in log.read_text()
    poor.ask("close_files")
    freed = time.monotonic()
    nodes.linked()
    linked = time.monotonic() - freed
    nodes.agree()
    assert flickers(ann, poor, newcomer) == []
    assert max(times) < nodes.silence
    measured(fault="no file descriptors", sees="a change is seen on old links", seconds=times)
    measured(fault="descriptors are free again", sees="there is a new link", seconds=[linked])


@pytest.mark.parametrize("begun", [True, False])
def test_full_disk_raises_an_error_that_names_the_socket(
    disk: Disk, cluster: Callable[..., Cluster], begun: bool
) -> None:
    nodes = cluster()
    witnesses = nodes.start("ann", "bob", prefix=disk.prefix)
    disk.fill_with_files()
    name = nodes.settings["cluster"] if begun else "one whose directory is not there yet"
    error = last_words(disk, cluster=name)
    expected = "adsum.errors.ListenError: unix:" if begun else "adsum.errors.ConfigurationError: "
    assert error.startswith(expected)
    assert "No space left on device" in error
    when_joined(witnesses, "undisturbed", nodes.track(witnesses[0], "undisturbed"))
    disk.clear()
    nodes.start("cid", prefix=disk.prefix)
    nodes.linked()
    nobody_leaves(0.5, *nodes.tracked.values())


def test_unix_socket_takes_no_disk_space(disk: Disk, cluster: Callable[..., Cluster]) -> None:
    nodes = cluster()
    disk.fill_with_bytes()
    nodes.start("ann", "bob", prefix=disk.prefix)
    nodes.linked()


def last_words(disk: Disk, **settings: str) -> str:
    """The last line that a process prints that fails to start."""
    command = [*disk.prefix, *python(WORKER, json.dumps(settings))]
    done = subprocess.run(
        command, input="", capture_output=True, text=True, env=clean_environment(), check=False
    )
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


@pytest.fixture
def disk(unique_name: str) -> Iterator[Disk]:
    with small_disk(unique_name) as disk:
        yield disk
