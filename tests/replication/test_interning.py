"""Equal topics share one string while they are recent, and none of them is kept for ever."""

import subprocess
import sys

from adsum.replication import interning
from adsum.replication.codec import decode, encode
from adsum.replication.entry import TOPIC
from adsum.replication.messages import Delta
from adsum.replication.state import Replica


def topic_of(number: int, name: str) -> str:
    """The topic of an entry that came in a frame of its own."""
    replica = Replica("owner", 1)
    entry = (number, number, name, "key", "{}", None, *replica)
    delta = decode(encode(Delta(replica, number - 1, number, (entry,))))
    assert isinstance(delta, Delta)
    (change,) = delta.changes
    assert len(change) > 2
    return change[TOPIC]


def test_entries_of_different_frames_share_the_interned_topic() -> None:
    first, second = topic_of(1, "room:shared"), topic_of(2, "room:shared")
    assert first == "room:shared"
    assert first is second


def test_interned_topics_stay_below_their_capacity() -> None:
    for number in range(2 * interning.CAPACITY // (1000 + interning.OVERHEAD)):
        interning.share(f"{number:01000d}")
        if number % 1000 == 0:
            held = sum(len(topic) + interning.OVERHEAD for topic in interning._recent)
            assert held <= interning.CAPACITY
    assert 0 < len(interning._recent) <= interning.CAPACITY // (1000 + interning.OVERHEAD)


def test_ended_topics_leak_no_memory() -> None:
    """In a process of its own, because interned strings of CPython 3.12 are immortal."""
    script = """
import asyncio, adsum, gc, resource
async def main():
    node = adsum.Node(siblings=False)
    presence = adsum.Presence(node)
    async with node:
        for number in range(60_000):
            with presence.track(f"{number:01000d}", "key", owner=None):
                pass
            if number == 20_000:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    assert int(done.stdout) < 16 * 1024, f"{done.stdout} KiB were kept"
