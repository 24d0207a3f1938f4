"""Two engines without a network: what making, decoding and merging changes costs."""

import gc
import time
from collections.abc import Callable
from random import Random

from adsum.replication.codec import decode, encode
from adsum.replication.effects import Send
from adsum.replication.engine import Engine
from adsum.replication.messages import Delta
from adsum.replication.state import Replica
from adsum.replication.timing import Timing
from adsum.values.jsontext import dump
from benchmarks.figures import Figure
from benchmarks.plan import Plan
from benchmarks.workload import presences

_LINK = 1
#: One-entry deltas take microseconds, so a repetition times this many.
_SINGLES = 100


class Pair:
    """An owner and a replica of its slice, linked, with the bytes between them in our hands.

    Attributes:
        build: Seconds spent on cutting and encoding deltas.
        read: Seconds spent on decoding them.
        merge: Seconds spent on merging them, the view included.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._owner = self._engine("owner")
        self._replica = self._engine("replica")
        self.build = self.read = self.merge = 0.0

    def _engine(self, name: str) -> Engine:
        return Engine(Replica(name, 1), Timing(), Random(1), self._now)  # jitter

    def link(self) -> None:
        """Link the two and bring the replica up to date."""
        for engine, other in ((self._owner, self._replica), (self._replica, self._owner)):
            engine.link_up(_LINK, other.replica, (), None, self._now)
        self.exchange()

    def change(self, count: int, first: int) -> None:
        """Track so many presences on the owner."""
        for topic, key, meta in presences(count, first=first):
            self._owner.track(topic, key, dump(meta))

    def exchange(self) -> None:
        """Carry messages to and fro until there are none."""
        while self._pass_on(self._owner, self._replica) + self._pass_on(self._replica, self._owner):
            pass

    def _pass_on(self, sender: Engine, receiver: Engine) -> int:
        self._now += 0.01
        building = self._time(lambda: sender.tick(self._now))
        sent = [effect.message for effect in sender.take_effects() if isinstance(effect, Send)]
        for message in sent:
            began = time.perf_counter()
            payload = encode(message)
            encoded = time.perf_counter()
            arrived = decode(payload)
            decoded = time.perf_counter()
            receiver.receive(_LINK, arrived, self._now)
            if isinstance(message, Delta):
                self.build += encoded - began + building
                self.read += decoded - encoded
                self.merge += time.perf_counter() - decoded
                building = 0.0
        return len(sent)

    def _time(self, work: Callable[[], object]) -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    def take_times(self) -> tuple[float, float, float]:
        """Build, read and merge since the last call."""
        times = self.build, self.read, self.merge
        self.build = self.read = self.merge = 0.0
        return times


def run(plan: Plan) -> list[Figure]:
    """Deltas of one and of 1,000 entries, and the transfer of everything."""
    samples: dict[str, list[float]] = {}

    def note(what: str, times: tuple[float, float, float], per: float) -> None:
        for part, value in zip(("build", "decode", "merge"), times, strict=True):
            samples.setdefault(f"{what}: {part}", []).append(value / per)
        samples.setdefault(f"{what}: decode and merge", []).append(sum(times[1:]) / per)

    size = plan.merged_into
    single = f"delta of one entry into {size:,}"
    bulk = f"delta of 1,000 entries into {size:,}"
    whole = f"full transfer of {size:,}"
    for _ in range(plan.repetitions):
        pair = Pair()
        pair.change(size, first=0)
        gc.collect()
        pair.link()
        note(whole, pair.take_times(), 1e-3)
        for number in range(_SINGLES):
            pair.change(1, first=size + number)
            pair.exchange()
        note(single, pair.take_times(), _SINGLES * 1e-6)
        pair.change(1_000, first=2 * size)
        pair.exchange()
        note(bulk, pair.take_times(), 1e-3)
        del pair
        gc.collect()
    original = "64,000 to 100,000 us at 100,000"
    return [
        Figure(
            group="Merging",
            name=name,
            unit="us" if name.startswith(single) else "ms",
            samples=tuple(values),
            original=original if name.startswith(single) and "merge" in name else "",
            target="thousands of times less" if name == f"{single}: merge" else "",
        )
        for name, values in samples.items()
    ]
