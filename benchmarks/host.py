"""What a worker process of a cluster does: runs nodes, changes things, and observes."""

import asyncio
import secrets
import time
from typing import Any

import adsum
from benchmarks.measure import StallProbe, received_bytes, resident_bytes
from benchmarks.waiting import until
from benchmarks.workload import TOPICS, meta, presences

#: The topic whose changes are timed.
WATCHED = "room:watched"
#: Tracking pauses this often, so that a loop stays responsive while a node is filled.
_BATCH = 200


class Host:
    """Some nodes in one process; every method is an order from the parent process."""

    def __init__(self) -> None:
        self.nodes: list[adsum.Node] = []
        self.presences: list[adsum.Presence] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._delays: list[float] = []
        self._left_at: dict[str, int] = {}
        self._stalls = StallProbe()
        self._began = 0.0

    # Lifecycle.

    async def start(self, name: str, *, cluster: str = "benchmark", **settings: Any) -> str:
        """Start one more node; returns its address."""
        self._began = time.perf_counter()
        node = adsum.Node(name=name, cluster=cluster, siblings=False, **settings)
        self.presences.append(adsum.Presence(node))
        self.nodes.append(node)
        await node.start()
        return node.address or ""

    async def stop(self) -> None:
        """Stop all nodes."""
        for node in self.nodes:
            await node.stop()

    async def settle(self, members: int, entries: int) -> float:
        """Wait until every node knows so many; returns the seconds since the last start."""
        await until(lambda: all(knows(node, members, entries) for node in self.nodes))
        return time.perf_counter() - self._began

    # Changing.

    async def fill(self, count: int, topics: int = TOPICS, first: int = 0) -> None:
        """Track so many presences on the first node."""
        coming = presences(count, topics=topics, first=first)
        for number, (topic, key, value) in enumerate(coming):
            self.presences[0].track(topic, key, value, owner=None)
            if number % _BATCH == 0:
                await asyncio.sleep(0)

    def track(self, topic: str, key: str) -> int:
        """Track one presence; returns when."""
        self.presences[0].track(topic, key, meta(0), owner=None)
        return time.monotonic_ns()

    def track_stamped(self, key: str) -> None:
        """Track one presence with the present time, on the watched topic."""
        self.presences[0].track(WATCHED, key, {"at": time.monotonic_ns()}, owner=None)

    async def send_changes(self, count: int, interval: float, load: int) -> None:
        """Track time-stamped presences on the watched topic.

        Args:
            count: How many.
            interval: Seconds between them.
            load: Changes per second on other topics meanwhile.
        """
        presence = self.presences[0]
        noise = asyncio.create_task(self._make_load(load)) if load else None
        for number in range(count):
            await asyncio.sleep(interval)
            stamp = {"at": time.monotonic_ns()}
            presence.track(WATCHED, f"user:{number}", stamp, owner="probe")
        await asyncio.sleep(0.1)
        if noise is not None:
            noise.cancel()
        presence.untrack_all("probe")

    async def _make_load(self, per_second: int) -> None:
        presence = self.presences[0]
        held = [presence.track(f"room:{n}", f"load:{n}", meta(n)) for n in range(1_000)]
        loop = asyncio.get_running_loop()
        began, made = loop.time(), 0
        while True:
            await asyncio.sleep(0.005)
            due = int((loop.time() - began) * per_second)
            for number in range(made, due):
                held[number % len(held)].update(meta(number))
            made = due

    # Observing.

    def observe(self) -> None:
        """Watch the watched topic on every node: time stamps that arrive, and who leaves."""
        for presence in self.presences:
            self._tasks.append(asyncio.create_task(self._observe(presence)))

    async def _observe(self, presence: adsum.Presence) -> None:
        async for diff in presence.watch(WATCHED):
            now = time.monotonic_ns()
            for entry in diff.joins.values():
                self._delays += [(now - m["at"]) / 1e9 for m in entry["metas"] if "at" in m]
            self._left_at.update(dict.fromkeys(diff.leaves, now))

    def take_delays(self) -> list[float]:
        """Seconds from each tracking to its diff here, since the last call."""
        delays, self._delays = self._delays, []
        return delays

    async def wait_for_key(self, topic: str, key: str) -> None:
        """Wait until a key is present on every node here."""
        await until(lambda: all(presence.get(topic, key) for presence in self.presences))

    async def wait_for_leave(self, key: str) -> int:
        """When a key was seen to leave, in nanoseconds of the monotonic clock of this host."""
        await until(lambda: key in self._left_at)
        return self._left_at[key]

    # Messages.

    def subscribe(self) -> None:
        """Count the messages that arrive here, and note how long each was under way."""
        self._tasks.append(asyncio.create_task(self._count(adsum.PubSub(self.nodes[0]))))

    async def _count(self, pubsub: adsum.PubSub) -> None:
        async for message in pubsub.subscribe(WATCHED, limit=1_000_000):
            self._delays.append((time.monotonic_ns() - message.payload["at"]) / 1e9)

    async def publish(self, count: int, size: int) -> float:
        """Publish so many messages of so many characters in one turn of the loop.

        Returns:
            Seconds until every call has returned.
        """
        pubsub = adsum.PubSub(self.nodes[0])
        texts = [secrets.token_hex(size // 2) for _ in range(count)]
        began, now = time.perf_counter(), time.monotonic_ns()
        missed = await asyncio.gather(
            *(pubsub.publish(WATCHED, {"at": now, "text": text}) for text in texts)
        )
        if sum(missed):
            raise RuntimeError(f"{sum(missed)} of {count} messages were missed")
        return time.perf_counter() - began

    async def publish_paced(self, count: int, interval: float) -> list[float]:
        """Publish so many small messages, and return the seconds that each call took."""
        pubsub, taken = adsum.PubSub(self.nodes[0]), []
        for _ in range(count):
            await asyncio.sleep(interval)
            began = time.perf_counter()
            await pubsub.publish(WATCHED, {"at": time.monotonic_ns()})
            taken.append(time.perf_counter() - began)
        return taken

    async def received_messages(self, count: int) -> list[float]:
        """Wait for so many messages; returns how many seconds each was under way."""
        await until(lambda: len(self._delays) >= count)
        return self.take_delays()

    # Instruments.

    def watch_stalls(self) -> None:
        """Begin to look for stalls of the event loop."""
        self._stalls.start()

    async def longest_stall(self) -> float:
        """The longest since `watch_stalls`, in seconds."""
        await asyncio.sleep(0.05)
        return self._stalls.stop()

    def resident(self) -> int:
        """See `resident_bytes`."""
        return resident_bytes()

    def links(self) -> int:
        """Links of all nodes of this process."""
        return sum(node.stats()["links"] for node in self.nodes)

    def received(self) -> int:
        """Bytes received by all nodes of this process."""
        return sum(received_bytes(node) for node in self.nodes)

    async def idle(self, duration: float) -> tuple[float, float]:
        """Bytes received and seconds of CPU, per node and second, while nothing happens."""
        bytes_before, cpu_before = self.received(), time.process_time()
        began = time.perf_counter()
        await asyncio.sleep(duration)
        share = (time.perf_counter() - began) * len(self.nodes)
        cpu = time.process_time() - cpu_before
        return (self.received() - bytes_before) / share, cpu / share


def knows(node: adsum.Node, members: int, entries: int) -> bool:
    """Whether a node has caught up with so many members and entries."""
    stats = node.stats()
    return (
        stats["members_up"] >= members
        and stats["presences"] >= entries
        and not stats["lag_changes"]
    )
