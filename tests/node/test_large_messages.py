"""Messages of bytes between real processes: whole or not at all, whatever happens to either end."""

import hashlib
import signal
from functools import partial
from pathlib import Path
from random import Random

import pytest

from tests.support.waiting import eventually
from tests.support.worker_processes import Worker, Workers

pytestmark = pytest.mark.processes

SIZE = 8 * 1024 * 1024
#: Bytes of memory that a receiver may use more than before, once it holds no message.
LEFT = 32 * 1024 * 1024


def expected(seed: int, count: int, size: int = SIZE) -> list[list[object]]:
    """The size and the digest of each message that a worker publishes."""
    rng = Random(seed)
    return [[size, hashlib.sha256(rng.randbytes(size)).hexdigest()] for _ in range(count)]


def linked(workers: Workers, cluster: str, count: int) -> tuple[Worker, list[Worker]]:
    """A sender and its receivers, all linked and subscribed."""
    first, *others = [workers.start(cluster=cluster) for _ in range(count)]
    names = {first.name, *(other.name for other in others)}
    for worker in (first, *others):
        eventually(partial(worker.is_linked_to, *(names - {worker.name})), "they are linked")
        worker.ask("subscribe")
    return first, others


def resident(worker: Worker) -> int:
    """Bytes of memory that a process uses."""
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return 1024 * int(line.split()[1])


def has_read(worker: Worker, messages: list[list[object]]) -> bool:
    return bool(worker.ask("read") == messages)


def missed(worker: Worker) -> int:
    return int(worker.ask("stats")["missed_messages_total"])


def under_way(worker: Worker, beyond: int) -> bool:
    """Whether a worker has received some of a large message that is not complete."""
    received = worker.ask("stats")["received_bytes_total"] - beyond
    return bool(received % SIZE > SIZE // 16)


def test_largest_message_arrives_identical_in_every_process(cluster_name: str) -> None:
    with Workers() as workers:
        sender, receivers = linked(workers, cluster_name, 3)
        sender.ask("publish", 1, SIZE, 3)
        for worker in (sender, *receivers):
            eventually(partial(has_read, worker, expected(1, 3)), "all messages are read")
            assert worker.ask("stats")["incomplete_messages_total"] == 0
        assert sender.ask("stats")["missed_messages_total"] == 0


def test_killed_sender_leaves_whole_messages_and_no_memory(cluster_name: str) -> None:
    with Workers() as workers:
        sender, (receiver,) = linked(workers, cluster_name, 2)
        before, start = resident(receiver), receiver.ask("stats")["received_bytes_total"]
        sender.ask("publish", 2, SIZE, 1000)
        eventually(partial(under_way, receiver, start), "a message is under way")
        sender.signal(signal.SIGKILL)
        eventually(lambda: receiver.ask("stats")["links"] == 0, "the link has ended")
        read = receiver.ask("read")
        assert read == expected(2, len(read))
        assert receiver.ask("stats")["incomplete_messages_total"] <= 1
        eventually(lambda: resident(receiver) - before < LEFT, "the memory is free")


def test_stopped_reader_misses_whole_messages_and_reads_later_ones(cluster_name: str) -> None:
    (later,) = expected(4, 1, 100_000)

    def arrives(sender: Worker, receiver: Worker) -> bool:
        """Whether a new message arrives; the first ones may be missed, until the link has room."""
        sender.ask("publish", 4, 100_000, 1)
        return later in receiver.ask("read")

    with Workers() as workers:
        sender, (receiver,) = linked(workers, cluster_name, 2)
        receiver.signal(signal.SIGSTOP)
        sender.ask("publish", 3, SIZE, 4)
        eventually(lambda: missed(sender) == 4, "the sender gives up")
        receiver.signal(signal.SIGCONT)
        eventually(lambda: arrives(sender, receiver), "a later message arrives")
        assert all(message == later for message in receiver.ask("read"))
        assert receiver.ask("stats")["incomplete_messages_total"] == 1
