"""Instruments: stop watches, and probes for stalls of an event loop and of the collector."""

import asyncio
import contextlib
import gc
import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import adsum
from adsum.driver.socketdriver import SocketDriver

#: Where Linux puts the bytes received into `struct tcp_info`; headers are not among them.
_RECEIVED = struct.Struct("@128xQ")
#: Where Linux puts the bytes sent that the other end has acknowledged, also without headers.
_ACKNOWLEDGED = struct.Struct("@120xQ")
#: How often a stall probe looks; shorter stalls than this do not show.
_PROBE_INTERVAL = 0.0005


def seconds(work: Callable[[], object], times: int = 1) -> float:
    """How long one call takes, over a batch of calls."""
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times


def yardstick_loop() -> float:
    """Seconds of a fixed amount of interpreter work: shows how the machine's speed wanders."""
    began = time.perf_counter()
    total = 0
    for value in range(300_000):
        total += value & 7
    return time.perf_counter() - began


def resident_bytes() -> int:
    """Physical memory of this process once the garbage is collected (Linux)."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def received_bytes(node: adsum.Node) -> int:
    """Bytes that came in over the open TCP links of a node, as the kernel counts them (Linux)."""
    driver, total = node.driver, 0
    if not isinstance(driver, SocketDriver):
        raise TypeError(f"{node!r} does not run on sockets")
    for connection in driver.sockets.connections():
        wire = connection.wire
        if wire is not None and not wire.is_closing():
            opened = wire.get_extra_info("socket")
            info = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED.size)
            total += _RECEIVED.unpack(info)[0]
    return total


def sent_bytes() -> int:
    """Bytes that this process has sent over its open TCP connections, headers left out (Linux)."""
    total = 0
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # no TCP connection, or closed meanwhile
            if not os.readlink(f"/proc/self/fd/{entry}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry))) as opened:
                info = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED.size)
                total += _ACKNOWLEDGED.unpack(info)[0]
    return total


class StallProbe:
    """Notes how long the event loop keeps a timer waiting that fires every half millisecond."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._last = 0.0
        self._handle: asyncio.Handle | None = None

    def start(self) -> None:
        """Begin anew."""
        self.stop()
        self.longest, self._last = 0.0, time.perf_counter()
        self._handle = asyncio.get_running_loop().call_soon(self._look)

    def stop(self) -> float:
        """End; returns the longest stall in seconds."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        return self.longest

    def _look(self) -> None:
        now = time.perf_counter()
        self.longest = max(self.longest, now - self._last)
        self._last = now
        self._handle = asyncio.get_running_loop().call_later(_PROBE_INTERVAL, self._look)


class CollectorProbe:
    """Times every run of the garbage collector."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self._began = 0.0

    def __enter__(self) -> "CollectorProbe":
        gc.callbacks.append(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self._note)

    def _note(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
        else:
            self.pauses.append(time.perf_counter() - self._began)
