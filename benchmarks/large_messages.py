"""Messages of bytes between processes: their rate, and what presence changes wait meanwhile.

One process publishes, one or three receive, over TCP on one host. Random bytes cannot be
compressed; the other data is JSON text, as an application has it.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import adsum
from benchmarks.figures import Figure, percentile
from benchmarks.host import Host
from benchmarks.plan import Plan
from benchmarks.processes import Worker, workers

_KIB = 1024
#: Messages of one transfer by their bytes, so that each transfer takes long enough.
_COUNTS = {64 * _KIB: 128, 1024 * _KIB: 16, 8 * 1024 * _KIB: 4}
_RECEIVERS = (1, 3)
#: Seconds between the presence changes that are timed.
_INTERVAL = 0.02
_TOPIC = "data"


class DataHost(Host):
    """What a worker process does with messages of bytes."""

    def subscribe_data(self) -> None:
        """Keep every message of the topic."""
        pubsub = adsum.PubSub(self.nodes[0])
        self._inbox = pubsub.subscribe(_TOPIC, limit=1_000_000, limit_bytes=1_000_000_000)

    async def publish_data(self, count: int, size: int, kind: str) -> int:
        """Publish messages one after the other; returns when it began, in nanoseconds."""
        pubsub, data = adsum.PubSub(self.nodes[0]), sample(size, kind)
        began = time.monotonic_ns()
        for _ in range(count):
            if await pubsub.publish(_TOPIC, data):
                raise RuntimeError("a message was missed")
        return began

    async def receive_data(self, count: int, size: int) -> int:
        """Read messages; returns when the last one was complete, in nanoseconds."""
        for _ in range(count):
            message = await anext(self._inbox)
            if len(message.payload) != size:
                raise RuntimeError(f"{len(message.payload)} bytes arrived, not {size}")
        return time.monotonic_ns()

    def keep_publishing(self, size: int, kind: str) -> None:
        """Publish messages without a pause until `stop_publishing`."""
        self._publishing = asyncio.create_task(self._publish_on(size, kind))

    async def _publish_on(self, size: int, kind: str) -> None:
        pubsub, data = adsum.PubSub(self.nodes[0]), sample(size, kind)
        while True:
            await pubsub.publish(_TOPIC, data)

    async def stop_publishing(self) -> None:
        """Stop what `keep_publishing` began."""
        self._publishing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._publishing


def sample(size: int, kind: str) -> bytes:
    """Data of a size: random bytes, or the text of records."""
    random = Random(1)
    if kind == "random":
        return random.randbytes(size)
    records = [
        f'{{"user":"user:{random.randrange(10**5)}","at":{random.random()}}},'
        for _ in range(64 * _KIB // 40)
    ]
    block = "".join(records).encode()
    return (block * (size // len(block) + 1))[:size]


def run(plan: Plan) -> list[Figure]:
    """Rates for one and three receivers, and the latency of changes during transfers."""
    figures = [figure for count in _RECEIVERS for figure in _rates(plan, count)]
    return figures + _latencies(plan)


def _rates(plan: Plan, receivers: int) -> list[Figure]:
    samples: dict[str, list[float]] = {}
    with _cluster(receivers) as (sender, others):
        for other in others:
            other.call("subscribe_data")
        for _ in range(plan.repetitions):
            for size, count in _COUNTS.items():
                for kind in ("random", "text"):
                    name = f"{_shown(size)}, {kind}, {receivers} receivers"
                    seconds = _transfer(sender, others, count, size, kind)
                    samples.setdefault(name, []).append(count * size / seconds / 1e6)
    return [
        _figure(f"messages of {name}, each", "MB/s", values) for name, values in samples.items()
    ]


def _transfer(sender: Worker, others: list[Worker], count: int, size: int, kind: str) -> float:
    """Seconds until every receiver has all messages."""
    for other in others:
        other.tell("receive_data", count, size)
    began = sender.call("publish_data", count, size, kind)
    return float(max(other.answer() for other in others) - began) / 1e9


def _latencies(plan: Plan) -> list[Figure]:
    """From `track` at a node that sends large messages to the diff at a watcher elsewhere."""
    samples: dict[str, list[float]] = {}
    with _cluster(1) as (sender, (watcher,)):
        watcher.call("observe")
        for _ in range(plan.repetitions):
            for kind in ("idle", "random", "text"):
                if kind != "idle":
                    sender.call("keep_publishing", max(_COUNTS), kind)
                sender.call("send_changes", plan.changes, _INTERVAL, 0)
                if kind != "idle":
                    sender.call("stop_publishing")
                delays = watcher.call("take_delays")
                for percent in (50, 99):
                    delay = 1e3 * percentile(delays, percent)
                    samples.setdefault(f"{kind}: p{percent}", []).append(delay)
    name = "a change seen in another process, while 8 MiB messages are sent"
    return [_figure(f"{name}, {kind}", "ms", values) for kind, values in samples.items()]


@contextmanager
def _cluster(receivers: int) -> Iterator[tuple[Worker, list[Worker]]]:
    with workers(DataHost, 1 + receivers) as (sender, *others):
        address = sender.call("start", "sender", listen="127.0.0.1:0")
        for number, other in enumerate(others):
            other.call("start", f"receiver {number}", listen="127.0.0.1:0", peers=address)
        for worker in (sender, *others):
            worker.call("settle", 1 + receivers, 0)
        yield sender, others


def _figure(name: str, unit: str, values: list[float]) -> Figure:
    return Figure(group="Large messages", name=name, unit=unit, samples=tuple(values))


def _shown(size: int) -> str:
    return f"{size // _KIB} KiB" if size < 1024 * _KIB else f"{size // (1024 * _KIB)} MiB"
