"""Programs with a portal, run as processes by `test_portal_processes.py`."""

import json
import multiprocessing
import os
import sys
import warnings
from typing import Any

import adsum

portal = adsum.Portal()


def name() -> str:
    """The name of the node of this process."""
    return portal.call(lambda: portal.node.name)


def publish_and_exit() -> None:
    """Track a key, publish, and leave without closing anything."""
    portal.track("room", "script")
    portal.publish("room", {"from": "script"})


def publish_many_and_exit() -> None:
    """Publish as the first use, more than a socket takes at once, and leave."""
    for number in range(500):
        portal.publish("room", {"number": number, "text": "x" * 2000})


def in_child(connection: Any) -> None:
    """Use the portal in a child of `multiprocessing`, which leaves by `os._exit`."""
    portal.track("room", "child")
    connection.send([name(), sorted(portal.list("room"))])
    connection.recv()


def fork_by_multiprocessing() -> None:
    """Use the portal, then use it in a forked child; the child ends normally."""
    portal.track("room", "parent")
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=in_child, args=(there,), daemon=True)
    child.start()
    theirs, keys = here.recv()
    watch = portal.watch("room", timeout=30)
    assert any("child" in diff.joins for diff in watch)
    here.send(None)
    child.join()
    left = list(next(watch).leaves)
    print(json.dumps({"names": [name(), theirs], "keys": keys, "left": left}))


def fork_by_os() -> None:
    """Use the portal and its handles in a child of `os.fork`, which leaves by SystemExit."""
    handle = portal.track("room", "parent")
    parent = name()
    watch = portal.watch("room", timeout=30)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        handle.untrack()  # does nothing here
        report = {"active": handle.active, "watch": list(watch), "started": portal.node.running}
        report |= {"keys": sorted(portal.list("room")), "names": [parent, name()]}
        portal.close()
        os.write(write, json.dumps(report).encode())
        sys.exit(0)
    os.waitpid(pid, 0)
    report = json.loads(os.read(read, 65536))
    report["still"] = [handle.active, list(next(watch).joins)]
    print(json.dumps(report))


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks in a process with threads
    {
        "publish": publish_and_exit,
        "publish_many": publish_many_and_exit,
        "mp": fork_by_multiprocessing,
        "os": fork_by_os,
    }[sys.argv[1]]()
