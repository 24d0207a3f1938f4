"""Real servers under attack: honest clients of the same server must not notice.

Each attack runs in a process of its own against one of two servers. Meanwhile an honest client of
each server measures its round trips, and the time between the broadcasts of the other server.
Afterwards no honest client has been announced as gone, both nodes list each other, both servers
have freed memory and connections, their logs are short and free of forged lines, and new clients
get in.

The limits of the round trip are the promise, and not relaxed for a busy machine. If they are
missed, the same clients are measured beside a harmless process of equal load; only if these miss
half the limits as well, the attack is tried once more.
"""

import asyncio
import json
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.support.waiting import eventually
from tests.support.worker_processes import Workers

from .attacker import ATTACKS, FORGED, MIB
from .honest_client import Notes, honest_client
from .servers import ROOT, SECRET, Cluster, Server, cluster

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(
        not Path("/proc/self/status").exists(), reason="it reads what a process uses from /proc"
    ),
]

#: Seconds of the median round trip and of the longest one, and between two broadcasts, at most.
MEDIAN, LONGEST, SILENCE = 0.1, 1.0, 1.0
#: The share of the broadcasts of the other node that may be lost.
LOST = 0.1
#: Seconds that an attack goes on, and in which it must have ended.
SECONDS, END = 2.5, 15.0
#: Bytes and open files by which a server may have grown some seconds after an attack.
GROWTH, FILES = 96 * MIB, 2
#: Bytes that one server may log during one attack.
LOGGED = 64 * 1024
#: Attacks whose clients vanish: servers hold such connections until a timeout of theirs.
VANISHING = ("slow_requests", "unread_broadcasts")
#: Seconds within which a new client is served after an attack.
NEW_CLIENT = 2.0


@pytest.fixture(scope="module", params=["uvicorn", "hypercorn"])
def servers(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="at-") as directory:
        name = f"attacks-{secrets.token_hex(4)}"
        with cluster(request.param, name, Path(directory)) as made:
            yield made


@asynccontextmanager
async def attacker(servers: Cluster, attack: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that has prepared an attack, and begins when it is sent a line."""
    target = {
        "port": servers.target.port,
        "sibling_port": servers.sibling.port,
        "links": [server.listen for server in servers.servers],
        "sockets": [str(path) for path in servers.directory.rglob("*.sock")],
        "seconds": SECONDS,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.attacks.attacker",
        attack,
        json.dumps(target),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def observe(
    servers: Cluster, attack: str, beside: Callable[[], object] | None = None
) -> tuple[list[Notes], dict[str, int]]:
    """The notes of both bystanders during an attack, and the report of the attacker.

    Args:
        servers: The attacked ones.
        attack: One of `ATTACKS`.
        beside: What is done during the attack, in a thread.
    """
    near, far = servers.servers
    names = (near.name, far.name)
    async with AsyncExitStack() as stack:
        both = [
            await stack.enter_async_context(
                honest_client(one.port, one.name, other=other.name, honest=names)
            )
            for one, other in ((near, far), (far, near))
        ]
        process = await stack.enter_async_context(attacker(servers, attack))
        for each in both:
            each.take_notes()
        async with asyncio.timeout(END):
            attacking = asyncio.create_task(process.communicate(b"go\n"))
            try:
                if beside is not None:
                    await asyncio.to_thread(beside)
                said, _ = await attacking
            finally:
                attacking.cancel()
        notes = [each.take_notes() for each in both]
    assert process.returncode == 0
    report: dict[str, int] = json.loads(said)
    return notes, report


def slow(notes: list[Notes], share: float = 1.0) -> list[str]:
    """The values in the notes that exceed a share of their limits."""
    return [
        f"{what} at the {where}: {value:.3f}, at most {share * most}"
        for where, seen in zip(("target", "sibling"), notes, strict=True)
        for what, value, most in (
            ("median round trip", seen.median, MEDIAN),
            ("longest round trip", seen.longest, LONGEST),
            ("silence of the other node", seen.silence, SILENCE),
            ("lost broadcasts, as a share", seen.lost / (seen.lost + len(seen.ticks) + 1), LOST),
        )
        if value > share * most
    ]


async def withstand(
    servers: Cluster, attack: str, beside: Callable[[], object] | None = None
) -> dict[str, int]:
    """Attack, and check everything that is promised; returns the report of the attacker."""
    before = [
        (server, set(server.present()), server.memory(), server.files())
        for server in servers.servers
    ]
    for server in servers.servers:
        server.log()
    notes, report = await observe(servers, attack, beside)
    if slow(notes) and slow((await observe(servers, "harmless"))[0], 0.5):
        notes, report = await observe(servers, attack)
    print(attack, report, [(each.median, each.longest, each.silence, each.lost) for each in notes])
    assert not slow(notes), (slow(notes), report)
    assert not [each.left for each in notes if each.left], "announced as gone"
    assert servers.is_whole()
    for server in servers.servers:
        async with asyncio.timeout(NEW_CLIENT):
            async with honest_client(server.port, "newcomer") as newcomer:
                await newcomer.has_been_answered()
    for server, keys, memory, files in before:
        check_log(server.log())
        if attack not in VANISHING:
            eventually_left(server, keys)
            eventually(partial(has_at_most, server.files, files + FILES), "their connections end")
        eventually(partial(has_at_most, server.memory, memory + GROWTH), "memory is freed")
    return report


def eventually_left(server: Server, before: set[str]) -> None:
    """Wait until nobody is present but those of before, who may have vanished unnoticed."""
    try:
        eventually(lambda: before >= set(server.present()), "all clients that went have left")
    except AssertionError as error:
        error.add_note(f"present at the {server.name}: {server.present()}")
        raise


def has_at_most(count: Callable[[], int], most: int) -> bool:
    return count() <= most


def check_log(text: str) -> None:
    """A log is short, and no client has written a line or a control character into it."""
    assert len(text.encode()) <= LOGGED, f"{len(text.encode())} bytes logged: {text[:500]!r}"
    lines = text.split("\n")
    assert not [line for line in lines if not line.isprintable()]
    assert not [line for line in lines if line.startswith(FORGED)]


@pytest.mark.parametrize(
    "attack", sorted(set(ATTACKS) - {"harmless", "silent_links", "heartbeat_frames"})
)
def test_attack_does_not_affect_honest_clients(servers: Cluster, attack: str) -> None:
    report = asyncio.run(withstand(servers, attack))
    assert report["done"] > 0, report


def test_heartbeat_flood_within_limits_is_answered_completely(servers: Cluster) -> None:
    report = asyncio.run(withstand(servers, "heartbeat_frames"))
    assert report == {"replies": 60_000, "done": 1}


def test_nodes_join_beside_silent_links(servers: Cluster) -> None:
    """One by TCP with the secret, and one by the Unix sockets of its siblings."""
    common = {"cluster": servers.name, "secret": SECRET}

    def join() -> None:
        with Workers() as workers:
            for how in (
                {"siblings": False, "peers": servers.target.listen},
                {"runtime_dir": str(servers.directory)},
            ):
                newcomer = workers.start(**common, **how)
                members = newcomer.ask("members")  # it has joined when it has started
                assert members == {newcomer.name: "self", "target": "up", "sibling": "up"}
                newcomer.tell("stop")
                newcomer.process.wait(END)

    report = asyncio.run(withstand(servers, "silent_links", join))
    assert report["opened"] == 256
