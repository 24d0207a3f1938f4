"""The memory of a connection that has joined a channel and is idle, and the CPU of joining."""

import os
import time
from pathlib import Path

from benchmarks.chat_load import ChatLoad, used
from benchmarks.contenders import chat_site, contenders, reported
from benchmarks.figures import Figure, Samples
from benchmarks.plan import Plan
from benchmarks.processes import workers

_PER_ROOM = 10
#: Connections that come first, so that the memory that all share does not count.
_FIRST = 100
#: Seconds for the server to finish the last join.
_PAUSE = 0.5
_PAGE = os.sysconf("SC_PAGESIZE")


def run(plan: Plan) -> list[Figure]:
    """Resident memory of one worker with many connections, less that before they came; CPU of each.

    The clients do not offer compression. The clients of adsum join a channel without a presence.
    """
    samples = Samples()
    sides = contenders(plan)
    for _ in range(plan.storms):
        for side in sides:
            with reported(side), chat_site(side, 1) as site, workers(ChatLoad, 1) as (load,):
                alone = resident(site.pids[0])
                load.call("enter", side.dialect, site.ports, _FIRST, "first", _PER_ROOM)
                before, (cpu,) = resident(site.pids[0]), used(site.pids)
                load.call("enter", side.dialect, site.ports, plan.joined, "room", _PER_ROOM)
                (cpu_after,) = used(site.pids)
                time.sleep(_PAUSE)
                cost = (resident(site.pids[0]) - before) / plan.joined
                load.call("leave")
            samples.note("a joined connection", side.name, "kB", cost / 1e3)
            joining = 1e6 * (cpu_after - cpu) / plan.joined
            samples.note("CPU of the servers for connecting and joining", side.name, "us", joining)
            samples.note("a worker without clients", side.name, "MB", alone / 1e6)
    return samples.figures(f"{plan.joined:,} joined connections, 1 worker")


def resident(pid: int) -> int:
    """Bytes of physical memory of a process (Linux)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
