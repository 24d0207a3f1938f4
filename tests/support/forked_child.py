"""Children that a test forks from its own process: each runs a function and returns its result."""

import json
import os
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: Bytes of a result, which a pipe holds before anybody reads.
MAX_RESULT = 65536


def in_child(action: Callable[[], Any]) -> Any:
    """Do something in a forked child; returns its result, or fails with its traceback."""
    return collect(fork(action))


def fork(action: Callable[[], Any]) -> tuple[int, int]:
    """Fork a child that does something; returns its process id, and where its result comes."""
    readable, writable = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks in a process with threads
        pid = os.fork()
    if pid:
        os.close(writable)
        return pid, readable
    try:
        os.close(readable)
        outcome = {"result": action()}
    except BaseException:
        outcome = {"error": traceback.format_exc()}
    finally:
        os.write(writable, json.dumps(outcome).encode())
        os._exit(0)


@contextmanager
def living_child() -> Iterator[None]:
    """A forked child that does nothing, and lives as long as the block."""
    readable, writable = os.pipe()

    def wait() -> None:
        os.close(writable)
        os.read(readable, 1)

    child = fork(wait)
    try:
        yield
    finally:
        os.close(writable)
        os.close(readable)
        collect(child)


def collect(child: tuple[int, int]) -> Any:
    """Wait until a child has exited; returns its result, or fails with its traceback."""
    pid, readable = child
    text = os.read(readable, MAX_RESULT)
    os.close(readable)
    os.waitpid(pid, 0)
    outcome = json.loads(text)
    assert "error" not in outcome, outcome["error"]
    return outcome["result"]


def descriptors() -> dict[int, str]:
    """The open descriptors of this process, and the files that they refer to."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[int(number)] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue  # the one that listed the directory
    return found
