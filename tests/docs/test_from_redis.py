"""docs/how-to/from-redis-dicts.md: documents_in_redis.py and documents_as_presences.py.

Each runs in two workers.
Both pass the same tests of their interface. The others show the failures of the page's table. Only
one clean-up at a time may run; the tests hold its lock, and release it to let a clean-up run.
"""

import ast
import asyncio
import importlib.util
import io
import time
import tokenize
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.waiting import DEADLINE, until

from .document_site import Site, Worker, served
from .example_processes import EXAMPLES
from .fresh_environment import fresh_environment
from .redis_server import RedisServer, redis_server

pytestmark = pytest.mark.processes

IN_REDIS = "documents_in_redis"
AS_PRESENCES = "documents_as_presences"
#: The fixture that serves each.
SITES = {IN_REDIS: "dicts", AS_PRESENCES: "presences"}
#: Seconds: short, so that a dead connection is stale soon, and long enough for a busy machine.
TIMES = {"HEARTBEAT": "1", "STALE_AFTER": "6", "CLEAN_UP_EVERY": "0.2"}
#: The lock of the clean-up, and a holder that is no worker.
LOCK, HOLDER = "clean-up", "a test"

Scene = Callable[[Site], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def presences(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    log = tmp_path_factory.mktemp("presences") / "log"
    with fresh_environment() as environment:
        environment |= {"LINGER": "10"}
        with served(AS_PRESENCES, environment, log) as site:
            yield site
    assert "Traceback" not in log.read_text(), log.read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(server: RedisServer) -> RedisServer:
    """A Redis with no data but the lock of the clean-up, which a test holds."""
    server.client.flushall()
    server.client.set(LOCK, HOLDER)
    return server


@pytest.fixture(scope="module")
def dicts(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    log = tmp_path_factory.mktemp("dicts") / "log"
    with fresh_environment() as environment:
        environment |= {**TIMES, "REDIS_URL": f"redis://127.0.0.1:{server.port}"}
        with served(IN_REDIS, environment, log) as site:
            yield site


@pytest.fixture(params=[AS_PRESENCES, IN_REDIS])
def site(request: pytest.FixtureRequest) -> Site:
    """Either program."""
    if request.param == IN_REDIS:
        request.getfixturevalue("redis")
    return cast(Site, request.getfixturevalue(SITES[request.param]))


@pytest.fixture
def program(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program on Redis in this process, without its server and without heartbeats."""
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{redis.port}")
    spec = importlib.util.spec_from_file_location(IN_REDIS, EXAMPLES / f"{IN_REDIS}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def play(site: Site, scene: Scene) -> None:
    """Run a scene at a site, once all of its workers serve."""

    async def main() -> None:
        await site.agrees("/users", {})
        await scene(site)

    asyncio.run(main())


@contextmanager
def killed(worker: Worker) -> Iterator[None]:
    """Kill a worker, and start it again after the block."""
    worker.kill()
    try:
        yield
    finally:
        worker.start()


@contextmanager
def clean_ups(redis: RedisServer) -> Iterator[None]:
    """Let clean-ups run."""
    redis.client.delete(LOCK)
    try:
        yield
    finally:
        redis.client.set(LOCK, HOLDER)


@contextmanager
def writes_paused(redis: RedisServer) -> Iterator[None]:
    """Let reads pass and writes wait, as in a slow moment of the server."""
    redis.client.client_pause(int(DEADLINE * 1000), all=False)
    try:
        yield
    finally:
        redis.client.client_unpause()


async def two_writes_wait(redis: RedisServer) -> None:
    """Wait until two workers have read a dict and want to write it."""

    def waiting() -> bool:
        clients = redis.client.client_list()
        return sum(each["cmd"] == "hset" and "b" in each["flags"] for each in clients) == 2

    await until(waiting, "two writes wait")


class Running:
    """The clean-ups of a program that run; none of them ends by itself."""

    def __init__(self, program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        monkeypatch.setattr(program, "CLEAN_UP_EVERY", 0.01)
        monkeypatch.setattr(program, "clean_up", self.clean_up)

    async def clean_up(self) -> None:
        self.count += 1
        await asyncio.Event().wait()


async def end_all(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks until they end: the release of a lock that has expired hides a cancellation."""

    def cancelled() -> bool:
        return not [task for task in tasks if task.cancel()]

    await until(cancelled, "all tasks end")


def lines_of_code(path: Path) -> int:
    """The lines of a program that are not empty, comments or docstrings."""
    text = path.read_text()
    blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in blank | {tokenize.ENDMARKER}:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def test_program_on_presences_has_half_the_lines_at_most() -> None:
    redis, presences = (EXAMPLES / f"{name}.py" for name in (IN_REDIS, AS_PRESENCES))
    assert 2 * lines_of_code(presences) <= lines_of_code(redis)


def test_two_workers_list_the_same(site: Site) -> None:
    async def scene(site: Site) -> None:
        async with site.editors("1", "ann", "bob") as (ann, _):
            await site.agrees("/documents/1", {"ann": ["reading"], "bob": ["reading"]})
            await site.agrees("/documents", ["1"])
            await site.agrees("/users", {"ann": 1, "bob": 1})
            await ann.close()
            await site.agrees("/users", {"bob": 1})
        await site.agrees("/documents/1", {})
        await site.agrees("/documents", [])
        await site.agrees("/users", {})

    play(site, scene)


def test_mode_is_pushed_to_clients_of_the_other_worker(site: Site) -> None:
    async def scene(site: Site) -> None:
        async with site.editors("2", "ann", "bob") as (ann, bob):
            await bob.set_mode("editing")
            await ann.sees({"ann": ["reading"], "bob": ["editing"]})
            await bob.close()
            await ann.sees({"ann": ["reading"]})

    play(site, scene)


def test_two_connections_of_a_user_are_one_user(site: Site) -> None:
    async def scene(site: Site) -> None:
        async with site.editors("3", "ann", "ann") as (_, tablet):
            await site.agrees("/documents/3", {"ann": ["reading", "reading"]})
            await site.agrees("/users", {"ann": 2})
            await tablet.close()
            await site.agrees("/documents/3", {"ann": ["reading"]})
            await site.agrees("/users", {"ann": 1})

    play(site, scene)


@pytest.mark.parametrize("worker", [0, 1], ids=["same worker", "other worker"])
def test_reloaded_tab_never_departs_among_presences(presences: Site, worker: int) -> None:
    async def scene(site: Site) -> None:
        document = f"reloaded-{worker}"
        async with site.editors(document, "ann", "bob") as (ann, bob):
            await bob.sees({"ann": ["reading"], "bob": ["reading"]})
            await ann.close(1001)  # as a browser does
            async with site.workers[worker].editor(document, "ann") as again:
                await again.open()
                await again.set_mode("editing")
                old = ["reading"] if worker else []  # listed beside the new one until it ends
                history = await bob.history_until({"ann": [*old, "editing"], "bob": ["reading"]})
                assert all("ann" in users for users in history), history
        await site.agrees("/documents", [])  # also the old one, after LINGER

    play(presences, scene)


def test_killed_worker_leaves_no_ghost_among_presences(presences: Site) -> None:
    async def scene(site: Site) -> None:
        async with site.editors("4", "ann", "bob") as (_, bob):
            await bob.sees({"ann": ["reading"], "bob": ["reading"]})
            with killed(site.workers[0]):
                await bob.sees({"bob": ["reading"]})
            await site.agrees("/documents/4", {"bob": ["reading"]})
            await site.agrees("/users", {"bob": 1})

    play(presences, scene)


def test_connections_that_open_and_close_at_once_are_all_counted_as_presences(
    presences: Site,
) -> None:
    async def scene(site: Site) -> None:
        async with AsyncExitStack() as stack:
            opening = [each.editor("5", "ann") for each in site.workers * 2]
            await asyncio.gather(*map(stack.enter_async_context, opening))
            await site.agrees("/users", {"ann": 4})
        await site.agrees("/users", {})

    play(presences, scene)


def test_killed_worker_leaves_a_ghost_in_redis_until_a_clean_up(
    redis: RedisServer, dicts: Site
) -> None:
    async def scene(site: Site) -> None:
        async with site.editors("6", "ann", "bob") as (_, bob):
            await site.agrees("/users", {"ann": 1, "bob": 1})
            with killed(site.workers[0]):
                stale_at = time.time() + float(TIMES["STALE_AFTER"])
            await until(lambda: time.time() > stale_at)
            await site.agrees("/documents/6", {"ann": ["reading"], "bob": ["reading"]})
            await site.agrees("/users", {"ann": 1, "bob": 1})
            with clean_ups(redis):
                await bob.sees({"bob": ["reading"]})
                await site.agrees("/documents/6", {"bob": ["reading"]})
                await site.agrees("/users", {"bob": 1})

    play(dicts, scene)


def test_one_of_two_connections_that_open_at_once_is_lost_in_redis(
    redis: RedisServer, dicts: Site
) -> None:
    async def scene(site: Site) -> None:
        async with AsyncExitStack() as stack:
            with writes_paused(redis):
                for worker in site.workers:
                    await stack.enter_async_context(worker.editor("7", "ann"))
                await two_writes_wait(redis)
            await until(lambda: redis.client.hlen("sessions") == 2, "two sessions")
            await site.agrees("/users", {"ann": 1})

    play(dicts, scene)


def test_user_is_lost_in_redis_when_the_session_that_was_counted_ends(
    redis: RedisServer, program: ModuleType
) -> None:
    async def main() -> None:
        async with program.redis:
            with writes_paused(redis):
                begins = [
                    asyncio.create_task(program.begin(each, "ann", "7"))
                    for each in ("phone", "tablet")
                ]
                await two_writes_wait(redis)
            await asyncio.gather(*begins)
            (counted,) = await program.connections.get("ann", [])
            await program.end(counted, "7")
            assert await program.connections.items() == {}
            assert len(await program.sessions.items()) == 1  # still connected

    asyncio.run(main())


def test_one_of_two_connections_that_close_at_once_stays_in_redis(
    redis: RedisServer, program: ModuleType
) -> None:
    async def main() -> None:
        async with program.redis:
            for session in ("phone", "tablet"):
                await program.begin(session, "ann", "8")
            with writes_paused(redis):
                ends = [asyncio.create_task(program.end(each, "8")) for each in ("phone", "tablet")]
                await two_writes_wait(redis)
            await asyncio.gather(*ends)
            await program.clean_up()
            assert len(await program.connections.get("ann", [])) == 1
            assert await program.sessions.items() == {}

    asyncio.run(main())


def test_clock_of_a_worker_decides_which_connections_a_clean_up_removes(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with program.redis:
            for worker, offset in (("slow", -3600), ("right", 0), ("fast", 3600)):
                clock = SimpleNamespace(time=lambda offset=offset: time.time() + offset)
                monkeypatch.setattr(program, "time", clock)
                await program.begin(worker, worker, "9")
            monkeypatch.setattr(program, "time", time)
            await program.clean_up()  # of the right clock: the slow one's client is connected
            assert set(await program.connections.items()) == {"right", "fast"}
            clock = SimpleNamespace(time=lambda: time.time() + program.STALE_AFTER + 60)
            monkeypatch.setattr(program, "time", clock)
            await program.clean_up()  # later, when all three workers have died
            assert set(await program.connections.items()) == {"fast"}

    asyncio.run(main())


def test_ghost_stays_in_redis_for_the_time_that_the_page_states(program: ModuleType) -> None:
    # Between the last heartbeat and the death at most a HEARTBEAT passes.
    assert program.STALE_AFTER - program.HEARTBEAT == 20
    assert program.STALE_AFTER + program.CLEAN_UP_EVERY == 40


def test_lock_of_a_clean_up_that_does_not_end_is_held_for_a_minute(
    redis: RedisServer, program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        redis.client.delete(LOCK)
        running = Running(program, monkeypatch)
        async with program.redis:
            workers = [asyncio.create_task(program.keep_clean()) for _ in range(2)]
            await until(lambda: running.count == 1, "a clean-up runs")
            assert 0 < redis.client.pttl(LOCK) <= 60_000
            await end_all(workers)

    asyncio.run(main())


def test_second_clean_up_begins_when_the_first_outlives_its_lock(
    redis: RedisServer, program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        redis.client.delete(LOCK)
        monkeypatch.setattr(program, "LOCK_TIMEOUT", 0.1)
        running = Running(program, monkeypatch)
        async with program.redis:
            workers = [asyncio.create_task(program.keep_clean()) for _ in range(2)]
            await until(lambda: running.count == 2, "two clean-ups run")
            await end_all(workers)

    asyncio.run(main())


def test_flush_of_redis_loses_connections_that_live(redis: RedisServer, dicts: Site) -> None:
    async def scene(site: Site) -> None:
        async with site.workers[0].editor("10", "ann") as ann:
            await site.agrees("/users", {"ann": 1})
            redis.client.flushall()
            await site.agrees("/documents", ["10"])  # the next heartbeats
            await site.agrees("/documents/10", {})
            await site.agrees("/users", {})
            await ann.set_mode("editing")
            await site.agrees("/documents/10", {"ann": ["editing"]})
            await site.agrees("/users", {})

    play(dicts, scene)


def test_requests_fail_while_redis_is_down(redis: RedisServer, dicts: Site) -> None:
    async def scene(site: Site) -> None:
        async with site.workers[0].editor("11", "ann") as ann:
            await site.agrees("/users", {"ann": 1})
            redis.stop()
            answer = await site.workers[0].get("/documents/11")
            assert answer is not None
            assert answer.status_code == 500
            redis.start()
            await site.agrees("/documents", ["11"])  # the next heartbeats
            await site.agrees("/documents/11", {})
            await ann.set_mode("editing")
            await site.agrees("/documents/11", {"ann": ["editing"]})

    play(dicts, scene)
