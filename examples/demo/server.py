"""One server process: runs `app` under uvicorn, and tells the supervisor what its node sees when.

Usage: ``python server.py PORT``, with a pipe as standard input. The process ends when that pipe
does, so it cannot outlive its supervisor, however that dies. Reports go to standard output, a
JSON object a line, with times of the monotonic clock, which all processes of a host share.
"""

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from typing import Any

import uvicorn

from app import ROOM, app, node, presence


def main() -> None:
    logging.basicConfig(format=f"[{os.environ['ADSUM_NAME']}] %(message)s")
    listener = listen(int(sys.argv[1]))
    config = uvicorn.Config(
        app,
        log_config=None,
        ws="adsum.channels.uvicorn:WebSocketProtocol",
        ws_max_size=65536,
        timeout_graceful_shutdown=2,
    )
    server = ReportingServer(config)
    end_with_supervisor(server)
    asyncio.run(server.serve(sockets=[listener]))


def listen(port: int) -> socket.socket:
    """Listen on a port of this host; on any free one, which is reported, if it is taken."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        listener.bind(("127.0.0.1", 0))
    return listener


class ReportingServer(uvicorn.Server):
    """Reports when it serves, and from then on what the node's own watch shows."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets
        down_after = node.settings.timing.down_after
        report(ready=True, port=sockets[0].getsockname()[1], down_after=down_after)
        self.reporting = asyncio.create_task(report_room())


async def report_room() -> None:
    """Follow the room, as any other watch does; ends with the node."""
    async for diff in presence.watch(ROOM):
        report(joined=[*count_by_node(diff.joins)], present=count_by_node(presence.list(ROOM)))


def count_by_node(entries: dict[str, Any]) -> dict[str, int]:
    """How many presences come from each node."""
    return Counter(meta["node"] for entry in entries.values() for meta in entry["metas"])


def report(**what: Any) -> None:
    """Tell the supervisor, if there still is one."""
    with contextlib.suppress(OSError):
        print(json.dumps({"at": time.monotonic(), **what}), flush=True)


def end_with_supervisor(server: uvicorn.Server) -> None:
    """Stop when the supervisor is gone, even if it had no chance to say so."""

    def wait() -> None:
        os.read(sys.stdin.fileno(), 1)
        server.should_exit = True

    threading.Thread(target=wait, daemon=True).start()
    if sys.platform == "linux":
        # A process that is paused cannot read; the kernel (PR_SET_PDEATHSIG) ends it, too.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


if __name__ == "__main__":
    main()
