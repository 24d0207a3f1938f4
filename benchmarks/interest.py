"""Messages over a carrier, at a node that does not subscribe: routed by topic, and over its link.

python -m benchmarks interest

All nodes are linked over one nats-server, and two of them subscribe to a topic. One more publishes
on it. A node in a process of its own, which subscribes to nothing, is measured: the bytes that the
engine delivers to it, and its CPU, both less those of the same seconds without messages.
"""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import adsum
from adsum.bus.bustransport import BusTransport
from adsum.driver.carrierdriver import CarrierDriver
from adsum.replication.messages import Publish
from benchmarks.figures import Figure, Samples
from benchmarks.host import WATCHED, Host
from benchmarks.plan import Plan
from benchmarks.processes import Worker, workers
from benchmarks.redis_presence import free_port
from benchmarks.waiting import block_until

_GROUP = "Interest"
_TOPIC, _LINKS = "routed by topic", "over links"
#: Messages of one sample, seconds between two, and characters of each.
_MESSAGES, _INTERVAL, _SIZE = 200, 0.02, 200
#: Seconds between the start and the first sample.
_QUIET = 15.0
#: Processes of the nodes that are neither measured nor publish.
_PROCESSES = 3
#: Few heartbeats, so that they hide little of what is measured.
_SETTINGS: dict[str, Any] = {
    "secret": "a secret of 16 bytes or more",
    "heartbeat_interval": 10.0,
    "down_after": 60.0,
    "forget_after": 120.0,
}


class CarrierHost(Host):
    """A process of nodes on a carrier."""

    def __init__(self) -> None:
        super().__init__()
        self._delivered = 0

    def subscribe_all(self) -> None:
        """Subscribe on each node here."""
        self._tasks += [asyncio.create_task(self._count(adsum.PubSub(n))) for n in self.nodes]

    def count(self) -> None:
        """Count the bytes that the engine delivers to the first node, from now on."""
        bus = self._bus()
        receive = bus.bus_received

        def counted(data: bytes) -> None:
            self._delivered += len(data)
            receive(data)

        bus.bus_received = counted  # type: ignore[method-assign]  # the client calls this one

    async def measure(self, seconds: float) -> tuple[int, float]:
        """The bytes delivered to this process, and its seconds of CPU, in so many seconds."""
        delivered, cpu = self._delivered, time.process_time()
        await asyncio.sleep(seconds)
        return self._delivered - delivered, time.process_time() - cpu

    async def publish_all(self, count: int, over_links: bool) -> None:
        """Publish so many messages on the watched topic."""
        driver = self.nodes[0].driver
        for _ in range(count):
            text = f'{{"at":{time.monotonic_ns()},"text":"{"x" * _SIZE}"}}'
            driver.post(Publish(WATCHED, "message", text), None, over_links=over_links)
            await asyncio.sleep(_INTERVAL)

    def _bus(self) -> BusTransport:
        driver = self.nodes[0].driver
        if not isinstance(driver, CarrierDriver) or driver.transport.bus is None:
            raise TypeError("the node has no carrier")
        return driver.transport.bus


def run(plan: Plan) -> list[Figure]:
    """Measure a node without subscriptions; nothing where nats-server is not installed."""
    if _program() is None:
        print("interest: nats-server is not installed")
        return []
    samples = Samples()
    with (
        _nats_server() as url,
        workers(CarrierHost, 3) as (publisher, subscribed, bystander),
        workers(CarrierHost, _PROCESSES) as rest,
    ):
        settings = {**_SETTINGS, "carrier": url}
        hosts = [publisher, subscribed, subscribed, bystander]
        hosts += [rest[number % _PROCESSES] for number in range(plan.crowd_on_carrier - len(hosts))]
        for number, host in enumerate(hosts):
            host.call("start", f"node-{number}", **settings)
        for host in (publisher, subscribed, bystander, *rest):
            host.call("settle", plan.crowd_on_carrier, 0)
        subscribed.call("subscribe_all")
        bystander.call("count")
        time.sleep(_QUIET)
        for _ in range(plan.repetitions):
            _measure(samples, publisher, subscribed, bystander)
    return samples.figures(f"{_GROUP}: {plan.crowd_on_carrier} nodes on a carrier, 2 subscribed")


def _measure(samples: Samples, publisher: Worker, subscribed: Worker, bystander: Worker) -> None:
    """One sample of each side, one after the other, less one without messages."""
    seconds = _MESSAGES * _INTERVAL + 2.0
    idle_bytes, idle_cpu = bystander.call("measure", seconds)
    for side in (_TOPIC, _LINKS):
        bystander.tell("measure", seconds)
        publisher.call("publish_all", _MESSAGES, side == _LINKS)
        delivered, cpu = bystander.answer()
        subscribed.call("received_messages", 2 * _MESSAGES)
        extra = (delivered - idle_bytes) / _MESSAGES
        samples.note("bytes delivered for a message", side, "bytes", extra)
        samples.note("CPU for a message", side, "us", 1e6 * (cpu - idle_cpu) / _MESSAGES)


def _program() -> str | None:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])  # where Debian puts it
    return shutil.which("nats-server", path=path)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def _nats_server() -> Iterator[str]:
    """A nats-server on a free port of the loopback, gone when the block ends; its URL."""
    with tempfile.TemporaryDirectory() as directory:
        port = free_port()
        command = [_program() or "", "--addr", "127.0.0.1", "--port", str(port)]
        null = subprocess.DEVNULL
        server = subprocess.Popen(command, cwd=directory, stdout=null, stderr=null)
        try:
            block_until(lambda: _accepts(port), pause=0.02, patience=10)
            yield f"nats://127.0.0.1:{port}"
        finally:
            server.kill()
            server.wait()
