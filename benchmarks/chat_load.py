"""The load generator of the chats: a process of clients that cost little beside their servers.

Clients of one process share a plain loop over epoll. A server sends the same bytes to all clients
of a room, so the meaning of the bytes of one read is remembered for the next client. The CPU of the
server processes is read from the kernel, at both ends of the time that counts.
"""

import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import websocket
from benchmarks.chat_dialects import DIALECTS, ChatDialect, stamp, stamp_of
from benchmarks.figures import percentile

#: Bytes of one read. Python allocates as many for each, which costs 4 us with 256 KiB.
_READ = 1 << 14
#: Reads that are remembered with their meaning.
_REMEMBERED = 2_000
#: Seconds of load before the time that counts.
_WARM = 0.4
#: Seconds without any message after which a load has ended.
_QUIET = 0.3
#: Seconds that entering may take for one client, and in which a load has to end.
_PATIENCE = 20.0
#: Clients that enter between two looks at those who have entered.
_TURN = 100
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Meaning:
    """The messages in the bytes of one read.

    Attributes:
        answers: Number of texts that are no shouts.
        stamps: Of the shouts.
        replies: Frames to send in return.
    """

    answers: int
    stamps: tuple[int, ...]
    replies: bytes


@dataclass(frozen=True, slots=True)
class Tally:
    """The result of a load.

    Attributes:
        seconds: During which messages counted.
        messages: Texts returned, or shouts received by all clients together.
        cpu: Seconds of CPU of each process that was named, in that order.
        own_cpu: Seconds of CPU of the process of the clients.
        p50: Seconds from sending to receiving: the median.
        p99: The same, of which one in a hundred took longer.
    """

    seconds: float
    messages: int
    cpu: list[float]
    own_cpu: float
    p50: float
    p99: float


class _Interval:
    """The time between two moments, and the CPU of processes in it."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._began, self._cpu, self._own = time.perf_counter(), used(pids), time.process_time()

    def end(self, delays: Sequence[int]) -> Tally:
        """The interval until now, with the nanoseconds that each message took.

        Raises:
            RuntimeError: There were no messages.
        """
        if not delays:
            raise RuntimeError("no message arrived")
        return Tally(
            time.perf_counter() - self._began,
            len(delays),
            [now - then for now, then in zip(used(self._pids), self._cpu, strict=True)],
            time.process_time() - self._own,
            percentile(delays, 50) / 1e9,
            percentile(delays, 99) / 1e9,
        )


class _Client:
    """One connection.

    Attributes:
        sent: When it sent the message that it waits for, in nanoseconds; 0 if it waits for none.
    """

    def __init__(self, opened: socket.socket, dialect: ChatDialect, room: str) -> None:
        self.socket, self._room = opened, room
        self.rest, self.sent = b"", 0
        self._echo = websocket.frame(websocket.TEXT, dialect.echo.replace("{room}", room).encode())
        self._shout = dialect.shout.replace("{room}", room)

    def echo(self) -> None:
        """Send a text that comes back to this client."""
        self.sent = time.monotonic_ns()
        self.socket.send(self._echo)

    def shout(self) -> None:
        """Send a text that goes to the whole room."""
        self.sent = time.monotonic_ns()
        text = self._shout.replace("{stamp}", stamp(self.sent))
        self.socket.send(websocket.frame(websocket.TEXT, text.encode()))


#: Takes in the messages of a client; returns whether its own message has come back.
Handler = Callable[[_Client, Meaning], bool]


class ChatLoad:
    """Clients of one chat; every method is an order from the parent process."""

    def __init__(self) -> None:
        self._dialect = DIALECTS["phoenix"]
        self._clients: dict[int, _Client] = {}
        self._epoll = select.epoll()
        self._known: dict[bytes, Meaning] = {}
        self._delays: list[int] = []

    def enter(
        self, dialect: str, ports: Sequence[int], count: int, room: str, per_room: int = 0
    ) -> None:
        """Let clients enter, one after the other, spread over the servers.

        Args:
            dialect: See `DIALECTS`.
            ports: Of the servers.
            count: Number of clients.
            room: Name of the room, or the first part of the names of several.
            per_room: Clients in each room; 0: all are in one.
        """
        self._dialect = DIALECTS[dialect]
        for number in range(count):
            name = f"{room}{number // per_room}" if per_room else room
            opened = _entered(ports[number % len(ports)], self._dialect, name)
            self._clients[opened.fileno()] = _Client(opened, self._dialect, name)
            self._epoll.register(opened.fileno(), select.EPOLLIN)
            if number % _TURN == 0:
                self._turn(0.0, self._echoed)

    def leave(self) -> None:
        """Drop all connections."""
        for client in self._clients.values():
            client.socket.close()
        self._clients.clear()

    def echo(self, seconds: float, pids: Sequence[int]) -> Tally:
        """Each client sends, waits for the same text, and sends again.

        Args:
            seconds: For how long.
            pids: The processes whose CPU counts.
        """
        for client in self._clients.values():
            client.echo()
        return self._load(self._echoed, seconds, pids, again=lambda client: client.echo())

    def shout(self, senders: int, seconds: float, pids: Sequence[int]) -> Tally:
        """Some clients send to the room, and send again as soon as they see their own text.

        Args:
            senders: Number of them.
            seconds: For how long.
            pids: The processes whose CPU counts.
        """
        for client in list(self._clients.values())[:senders]:
            client.shout()
        return self._load(self._shouted, seconds, pids, again=lambda client: client.shout())

    def pace(self, what: str, rate: float, seconds: float, pids: Sequence[int]) -> Tally:
        """Clients take turns in sending at a steady rate.

        Args:
            what: "echo" or "shout".
            rate: Messages per second.
            seconds: For how long.
            pids: The processes whose CPU counts.
        """
        handle = self._echoed if what == "echo" else self._shouted
        clients = list(self._clients.values())
        self._delays, interval, began = [], _Interval(pids), time.perf_counter()
        for number in range(int(rate * seconds)):
            self._run(began + number / rate, handle)
            client = clients[number % len(clients)]
            if what == "shout":
                client.shout()
            elif not client.sent:
                client.echo()
        self._run(began + seconds, handle)
        self._until_quiet(handle)
        return interval.end(self._delays)

    def _load(
        self, handle: Handler, seconds: float, pids: Sequence[int], again: Callable[[_Client], None]
    ) -> Tally:
        """Run a load in which each sender sends again, and take the time between.

        Several clients never sleep if a core is free for them: to wake a reader on the same machine
        costs the sender some 3 us of its own CPU, which clients behind a network do not cost.
        """

        def handle_and_repeat(client: _Client, meaning: Meaning) -> bool:
            if handle(client, meaning):
                again(client)
            return False

        awake = len(self._clients) > 1 and len(os.sched_getaffinity(0)) > len(pids)
        longest_wait = 0.0 if awake else 1.0
        self._run(time.perf_counter() + _WARM, handle_and_repeat, longest_wait)
        self._delays, interval = [], _Interval(pids)
        self._run(time.perf_counter() + seconds, handle_and_repeat, longest_wait)
        tally = interval.end(self._delays)
        self._until_quiet(handle)
        for client in self._clients.values():
            client.sent = 0
        return tally

    # The loop.

    def _run(self, until: float, handle: Handler, longest_wait: float = 1.0) -> None:
        """Receive until a time, and sleep for no longer than so many seconds at once."""
        while (left := until - time.perf_counter()) > 0:
            self._turn(min(left, longest_wait), handle)

    def _until_quiet(self, handle: Handler) -> None:
        """Receive until nothing has come for a moment and no client waits, with a bound."""
        give_up_at = time.perf_counter() + _PATIENCE
        while time.perf_counter() < give_up_at and (
            self._turn(_QUIET, handle) or any(client.sent for client in self._clients.values())
        ):
            pass

    def _turn(self, wait: float, handle: Handler) -> int:
        """Receive what is there within so many seconds; returns the number of reads."""
        ready = self._epoll.poll(wait, max(1, len(self._clients)))
        for descriptor, _ in ready:
            client = self._clients[descriptor]
            meaning = self._receive(client)
            if meaning.replies:
                client.socket.send(meaning.replies)
            handle(client, meaning)
        return len(ready)

    def _receive(self, client: _Client) -> Meaning:
        data = client.socket.recv(_READ)
        if not data:
            raise ConnectionError("a server closed a connection")
        if client.rest:
            data = client.rest + data
        meaning = self._known.get(data)
        if meaning is not None:
            client.rest = b""
            return meaning
        frames, client.rest = split_frames(data)
        meaning = meaning_of(frames, self._dialect)
        if not client.rest:
            if len(self._known) > _REMEMBERED:
                self._known.clear()
            self._known[data] = meaning
        return meaning

    def _echoed(self, client: _Client, meaning: Meaning) -> bool:
        """Take the time of an answer; returns whether it was the one that the client waits for."""
        if not meaning.answers or not client.sent:
            return False
        self._delays.append(time.monotonic_ns() - client.sent)
        client.sent = 0
        return True

    def _shouted(self, client: _Client, meaning: Meaning) -> bool:
        """Take the times of shouts; returns whether one was the client's own."""
        if not meaning.stamps:
            return False
        now = time.monotonic_ns()
        self._delays += [now - at for at in meaning.stamps]
        own = client.sent in meaning.stamps
        if own:
            client.sent = 0
        return own


def used(pids: Sequence[int]) -> list[float]:
    """Seconds of CPU that each of the processes has used, those of the system for it included."""
    return [seconds_of(Path(f"/proc/{pid}/stat").read_text(), _TICKS) for pid in pids]


def seconds_of(stat: str, ticks: int) -> float:
    """The sum of utime and stime, which follow the name in parentheses (`man 5 proc`)."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / ticks


def split_frames(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The whole frames of a server, as first byte and payload, and the beginning of the next."""
    frames, position, size = [], 0, len(data)
    while size - position >= 2:
        length, start = data[position + 1], position + 2
        if length >= 126:
            start += 2 if length == 126 else 8
            length = int.from_bytes(data[position + 2 : start], "big")
        if start > size or start + length > size:
            break
        frames.append((data[position], data[start : start + length]))
        position = start + length
    return frames, data[position:]


def meaning_of(frames: Sequence[tuple[int, bytes]], dialect: ChatDialect) -> Meaning:
    """The messages of some frames.

    Raises:
        ConnectionError: The server closes the connection.
    """
    answers, stamps, replies = 0, [], b""
    for head, payload in frames:
        if head == websocket.PING:
            replies += websocket.frame(websocket.PONG, payload)
        elif head == websocket.CLOSE:
            raise ConnectionError(f"a server closed a connection: {payload!r}")
        elif payload in dialect.answers:
            replies += websocket.frame(websocket.TEXT, dialect.answers[payload])
        elif (at := stamp_of(payload)) is not None:
            stamps.append(at)
        else:
            answers += 1
    return Meaning(answers, tuple(stamps), replies)


def _entered(port: int, dialect: ChatDialect, room: str) -> socket.socket:
    """A connection whose client has entered a room."""
    opened = socket.create_connection(("127.0.0.1", port), _PATIENCE)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened.sendall(websocket.upgrade(dialect.path.replace("{room}", room)))
    head, received = b"", b""
    while b"\r\n\r\n" not in head:
        head += _some(opened)
    head, _, received = head.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101"):
        raise ConnectionError(f"no upgrade: {head[:80]!r}")
    for text, beginning in dialect.entering:
        if text:
            filled = text.replace("{room}", room).encode()
            opened.sendall(websocket.frame(websocket.TEXT, filled))
        frames, received = split_frames(received)
        while not any(payload.startswith(beginning) for _, payload in frames):
            frames, received = split_frames(received + _some(opened))
    opened.setblocking(False)
    return opened


def _some(opened: socket.socket) -> bytes:
    data = opened.recv(_READ)
    if not data:
        raise ConnectionError("a server closed a connection that was entering")
    return data
