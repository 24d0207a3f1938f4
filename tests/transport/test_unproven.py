"""The connection to drop when too many are unproven: over real sockets, and the rule itself."""

import asyncio
import heapq
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from random import Random

import pytest

from adsum.errors import DialError
from adsum.transport.framing import PAYLOAD, encode_frame
from adsum.transport.greeting import Greeting
from adsum.transport.handshake import Handshake
from adsum.transport.limits import TransportLimits
from adsum.transport.options import TransportOptions
from adsum.transport.sockets import SocketTransport
from adsum.transport.tls import TLS
from adsum.transport.unproven import Unproven, network_of
from tests.support.raw_peer import RawPeer
from tests.support.transports import Recorder, bound_port, identity, in_loop
from tests.support.waiting import until

#: Nobody is given up for being slow in these tests, so only a dropped connection makes room.
PATIENT = TransportLimits(handshake_timeout=600.0)
MOST = PATIENT.pending_handshakes
SECRET = b"a shared secret"
#: Addresses of this host that strangers connect from; honest nodes connect from 127.0.0.1.
STRANGE = "127.0.0.2"


class Stage:
    """A node with a link over TCP and one over a Unix socket, and those that attack it."""

    def __init__(
        self, directory: Path, limits: TransportLimits = PATIENT, tls: TLS | None = None
    ) -> None:
        self.handler = Recorder()
        self._tls = tls
        self._path = f"unix:{directory}/node"
        self._stack = ExitStack()
        self._diallers: list[SocketTransport] = []
        self.node = self._transport("node", self.handler, limits)

    async def begin(self) -> None:
        self.tcp, self.unix = await self.node.listen_all(["127.0.0.1:0", self._path])
        for address in (self.tcp, self.unix):
            await self.dial(address)
        await until(lambda: len(self.handler.opened) == 2)

    async def dial(self, address: str) -> None:
        """A newcomer dials once; raises if it does not get in."""
        name = f"newcomer {len(self._diallers)}"
        await self._transport(name, Recorder(), PATIENT).dial(address)

    async def silent(self, number: int, source: str = STRANGE) -> list[socket.socket]:
        """Connect over TCP and say nothing; done when the node has accepted them all."""
        strangers: list[socket.socket] = []
        for _ in range(number):
            sock = self._stack.enter_context(socket.socket())
            sock.bind((source, 0))
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", bound_port(self.tcp)))
            strangers.append(sock)
            if len(strangers) % 50 == 0:
                await self.accepted(strangers)
        await self.accepted(strangers)
        return strangers

    async def silent_on_unix(self, number: int) -> list[socket.socket]:
        strangers = []
        for _ in range(number):
            sock = self._stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.setblocking(False)
            sock.connect(self.unix.removeprefix("unix:"))
            strangers.append(sock)
            await asyncio.sleep(0.001)
        return strangers

    async def accepted(self, strangers: list[socket.socket]) -> None:
        await until(
            lambda: len(self.unproven) + sum(map(hung_up, strangers)) >= len(strangers),
            "each stranger is held or hung up on",
        )

    @property
    def unproven(self) -> list[object]:
        return [one for one in self.node.connections() if isinstance(one.phase, Greeting)]

    async def end(self) -> None:
        """The links that were there first were never disturbed."""
        assert not self.handler.closed
        for link in self.handler.opened[:2]:
            link.send(b"still here")
        await until(lambda: all(d.handler.payloads == [b"still here"] for d in self._diallers[:2]))  # type: ignore[attr-defined]  # all are recorders
        for transport in (*self._diallers, self.node):
            await transport.close()
        self._stack.close()

    def _transport(self, name: str, handler: Recorder, limits: TransportLimits) -> SocketTransport:
        made = SocketTransport(
            identity(name), handler, TransportOptions(secret=SECRET, limits=limits, tls=self._tls)
        )
        if name != "node":
            self._diallers.append(made)
        return made


def hung_up(sock: socket.socket) -> bool:
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


@in_loop
async def test_silent_tcp_connections_block_no_handshake(
    short_path: Path,
) -> None:
    stage = Stage(short_path)
    await stage.begin()
    strangers = await stage.silent(MOST)
    assert not any(map(hung_up, strangers)), "there is room for them"

    for _ in range(3):
        await stage.dial(stage.unix)
        await stage.dial(stage.tcp)

    await until(lambda: sum(map(hung_up, strangers)) == 1, "one was dropped; each left its place")
    await stage.end()


@in_loop
async def test_silent_unix_connections_block_no_handshake(
    short_path: Path,
) -> None:
    stage = Stage(short_path)
    await stage.begin()
    strangers = await stage.silent_on_unix(2 * MOST)
    await until(lambda: sum(map(hung_up, strangers)) == MOST)

    await stage.dial(stage.unix)
    await stage.dial(stage.tcp)

    await stage.end()


@in_loop
async def test_handshake_succeeds_from_the_address_of_silent_connections(
    short_path: Path,
) -> None:
    """As a crowd of honest nodes behind the NAT of a silent stranger."""
    stage = Stage(short_path)
    await stage.begin()
    await stage.silent(5 * MOST, source="127.0.0.1")
    assert len(stage.unproven) == MOST

    for _ in range(MOST):
        await stage.dial(stage.tcp)

    assert len(stage.unproven) >= MOST // 2
    await stage.end()


@in_loop
async def test_connection_flood_evicts_only_its_own_address(
    short_path: Path,
) -> None:
    """Ten connections of another address wait for a long time, and each still has its place."""
    stage = Stage(short_path)
    await stage.begin()
    flood = await stage.silent(2 * MOST)
    patient = await stage.silent(10, source="127.0.0.3")
    flood += await stage.silent(3 * MOST)

    await until(lambda: sum(map(hung_up, flood)) == 5 * MOST - (MOST - len(patient)))
    assert not any(map(hung_up, patient))
    await stage.end()


@in_loop
async def test_slow_handshake_succeeds_during_a_flood_of_its_address(
    short_path: Path,
) -> None:
    stage = Stage(short_path)
    await stage.begin()
    slow = RawPeer()
    loop = asyncio.get_running_loop()
    await loop.create_connection(
        lambda: slow, "127.0.0.1", bound_port(stage.tcp), local_addr=(STRANGE, 0)
    )
    handshake = Handshake(identity("slow"), dialling=True, secret=SECRET)
    slow.send(handshake.start())
    await until(lambda: slow.taken)

    await stage.silent(5 * MOST)
    slow.send(handshake.receive(*slow.taken.pop(0)))
    slow.mac = handshake.outgoing

    await until(lambda: len(stage.handler.opened) == 3)
    slow.send(encode_frame(PAYLOAD, b"slow, and in"))
    await until(lambda: stage.handler.payloads == [b"slow, and in"])
    slow.close()
    await until(lambda: stage.handler.closed)
    stage.handler.closed.clear()
    await stage.end()


@in_loop
async def test_pending_tls_handshakes_are_counted_and_evicted(
    short_path: Path, tls: TLS, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage(short_path, tls=tls)
    await stage.begin()
    before = descriptors()
    strangers = await stage.silent(3 * MOST)
    await until(lambda: sum(map(hung_up, strangers)) == 2 * MOST)
    await until(lambda: descriptors() == before + len(strangers) + MOST)

    await stage.dial(stage.tcp)
    await stage.dial(stage.unix)

    assert [record.getMessage() for record in caplog.records] == [
        f"node@1: an inbound connection was refused: {STRANGE}: "
        f"more than {MOST} handshakes are pending"
    ]
    await stage.end()


@in_loop
async def test_handshake_limit_of_zero_accepts_no_connection(short_path: Path) -> None:
    node = SocketTransport(
        identity("node"), Recorder(), TransportOptions(limits=TransportLimits(pending_handshakes=0))
    )
    address = await node.listen("127.0.0.1:0")
    with pytest.raises(DialError):
        await SocketTransport(identity("dialler"), Recorder(), TransportOptions()).dial(address)
    assert not node.connections()
    await node.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# The rule itself.


def test_address_below_its_share_of_handshakes_is_not_evicted() -> None:
    rng = Random(7)
    unproven = Unproven[int](20)
    mine = {100, 101, 102, 103}
    for connection in range(2000):
        address = "mine" if connection in mine else rng.choice(["one", "other", "third"])
        assert unproven.add(connection, address) not in mine
    assert len(unproven) == 20


def test_oldest_handshake_is_evicted_when_each_address_has_one() -> None:
    unproven = Unproven[int](10)
    for number in range(10):
        assert unproven.add(number, number) is None
    assert unproven.add(10, 10) == 5
    unproven.discard(0)
    unproven.discard(0)
    assert (unproven.add(11, 11), len(unproven)) == (None, 10)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("::1", "0.0.0.0", False),
        ("no address", "no address", True),
    ],
)
def test_addresses_of_ipv6_are_grouped_by_the_network_of_a_host(
    one: str, other: str, same: bool
) -> None:
    assert (network_of(one) == network_of(other)) is same


@pytest.mark.parametrize("seconds", [0.01, 0.3, 3.0])
def test_crowd_behind_one_address_completes_slow_handshakes(
    seconds: float,
) -> None:
    """200 nodes dial one at once, as those of one host do, while a stranger floods.

    They redial as the dialler of the engine does. Were the oldest dropped, and handshakes slow,
    newcomers would replace one another, and nobody would get in.
    """
    nodes = 200
    admitted = list(admissions(nodes, seconds, strangers_per_second=20))
    assert len(admitted) == nodes


def admissions(nodes: int, seconds: float, strangers_per_second: int) -> Iterator[float]:
    """When each node of a crowd proves itself, in virtual time; ends after a minute of it."""
    rng, serial = Random(1), count()
    unproven = Unproven[tuple[int, int]](MOST)
    failures = [0] * nodes
    events: list[tuple[float, int, str, tuple[int, int]]] = []

    def at(when: float, what: str, connection: tuple[int, int]) -> None:
        heapq.heappush(events, (when, next(serial), what, connection))

    for node in range(nodes):
        at(0.05 * rng.random(), "dial", (node, 0))
    for number in range(60 * strangers_per_second):
        at(number / strangers_per_second, "dial", (-1, number))
    dropped: set[tuple[int, int]] = set()
    while events and (event := heapq.heappop(events))[0] < 60:
        now, _, what, connection = event
        node = connection[0]
        if what == "dial":
            if (victim := unproven.add(connection, "the NAT")) is not None:
                dropped.add(victim)
                if victim[0] >= 0:
                    pause = min(3.0, 0.1 * 2 ** failures[victim[0]]) * (0.5 + rng.random() / 2)
                    failures[victim[0]] += 1
                    at(now + pause, "dial", (victim[0], victim[1] + 1))
            honest = seconds * (0.7 + 0.6 * rng.random())
            at(now + (honest if node >= 0 else 5.0), "end", connection)
        elif connection not in dropped:
            unproven.discard(connection)
            if node >= 0:
                yield now
