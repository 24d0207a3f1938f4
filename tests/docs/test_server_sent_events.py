"""Streams of server-sent events, to clients at two workers and to the EventSource of a browser."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import pytest

from adsum.testing import MakeCluster
from tests.support.waiting import DEADLINE

from .browser_window import browser, needs_chromium
from .cluster_programs import ClusterPrograms
from .example_processes import WORKERS
from .worker_server import WorkerServer, kill, worker_server

processes = pytest.mark.processes


@pytest.fixture(scope="module")
def server() -> Iterator[WorkerServer]:
    with worker_server("server_sent_events:app") as running:
        yield running


class Stream:
    """The events of one response, folded as the page of the program folds them."""

    def __init__(self, answer: httpx2.Response, worker: int) -> None:
        self.worker = worker
        self.headers = answer.headers
        self.people: dict[str, Any] = {}
        self._lines = answer.aiter_lines()

    async def event(self) -> str:
        """Receive one event, and apply it; returns its name."""
        fields: dict[str, str] = {}
        while line := await anext(self._lines):
            name, _, value = line.partition(": ")
            fields[name] = value
        if fields["event"] == "state":
            self.people.clear()
        self.people.update(json.loads(fields["data"]))
        self.people = {user: metas for user, metas in self.people.items() if metas}
        return fields["event"]

    async def sees(self, *users: str) -> None:
        """Receive events until exactly these users are present."""
        async with asyncio.timeout(DEADLINE):
            while sorted(self.people) != sorted(users):
                await self.event()


@asynccontextmanager
async def stream(server: WorkerServer, path: str, **headers: str) -> AsyncIterator[Stream]:
    url = server.url(path)
    async with (
        httpx2.AsyncClient(trust_env=False, timeout=DEADLINE) as web,
        web.stream("GET", url, headers=headers) as answer,
    ):
        _, port = answer.extensions["network_stream"].get_extra_info("client_addr")
        yield Stream(answer, await server.worker_of(port))


async def on_two_workers(server: WorkerServer, room: str, stack: AsyncExitStack) -> list[Stream]:
    """A stream of Ann and one of Bob, at different workers."""
    ann = await stack.enter_async_context(stream(server, f"/rooms/{room}/events?user=ann"))
    while True:
        async with AsyncExitStack() as attempt:
            path = f"/rooms/{room}/events?user=bob"
            bob = await attempt.enter_async_context(stream(server, path))
            if bob.worker != ann.worker:
                stack.push_async_callback(attempt.pop_all().aclose)
                return [ann, bob]


@processes
def test_streams_of_all_workers_begin_with_the_state_and_continue_with_diffs(
    server: WorkerServer,
) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            ann, bob = await on_two_workers(server, "1", stack)
            assert await ann.event() == await bob.event() == "state"
            assert len({ann.worker, bob.worker}) == WORKERS
            for one in (ann, bob):
                await one.sees("ann", "bob")
            async with stream(server, "/rooms/1/events?user=eve") as eve:
                await eve.sees("ann", "bob", "eve")
                await ann.sees("ann", "bob", "eve")
            # The server notices that the client has gone, without writing to it.
            await ann.sees("ann", "bob")
            assert ann.headers["cache-control"] == "no-store"
            assert ann.headers["x-accel-buffering"] == "no"

    asyncio.run(main())


@processes
def test_client_that_reconnects_receives_the_whole_state(server: WorkerServer) -> None:
    async def main() -> None:
        path = "/rooms/2/events?user="
        async with stream(server, f"{path}ann") as ann:
            await ann.sees("ann")
            async with stream(server, f"{path}bob", **{"last-event-id": "7"}) as bob:
                assert await bob.event() == "state"
                await bob.sees("ann", "bob")

    asyncio.run(main())


@processes
def test_killed_worker_leaves_no_ghost(server: WorkerServer) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            ann, bob = await on_two_workers(server, "3", stack)
            await bob.sees("ann", "bob")
            kill(ann.worker)
            await bob.sees("bob")

    asyncio.run(main())


@processes
@pytest.mark.parametrize(
    "path", ["1/events?user=", "1/events", "x/events?user=x", "x/events?user=ann"]
)
def test_stream_of_a_wrong_name_does_not_begin(server: WorkerServer, path: str) -> None:
    url = server.url(f"/rooms/{path.replace('x', 'x' * 1100)}")
    assert httpx2.get(url, trust_env=False, timeout=DEADLINE).status_code == 422


@processes
@needs_chromium
def test_page_shows_users_in_the_eventsource_of_a_browser(server: WorkerServer) -> None:
    async def main() -> None:
        async with (
            browser() as open_window,
            open_window(server.url("/?user=ann"), "ann") as ann,
        ):
            async with open_window(server.url("/?user=bob"), "bob") as bob:
                for window in (ann, bob):
                    await window.sees("people", "ann, bob")
            await ann.misses("people", "bob")

    asyncio.run(main())


@processes
def test_server_stops_while_a_client_reads() -> None:
    async def main(server: WorkerServer) -> None:
        async with stream(server, "/rooms/1/events?user=ann") as ann:
            await ann.sees("ann")
            await asyncio.to_thread(server.stop)

    with worker_server("server_sent_events:app") as server:
        asyncio.run(main(server))


def test_changes_are_merged_for_a_slow_reader(cluster: MakeCluster) -> None:
    async def main() -> None:
        running = ClusterPrograms(cluster(0), "server_sent_events.py")
        (program,) = await running.start(1)
        events = program.changes("room:1", "ann")
        assert (await anext(events))["event"] == "state"
        for number in range(1000):
            with program.presence.track("room:1", f"user {number}"):
                await asyncio.sleep(0)
        program.presence.track("room:1", "bob")
        await running.settle()
        diff = await anext(events)
        assert list(json.loads(diff["data"])) == ["bob"]
        await events.aclose()
        await running.settle()  # longer than LINGER
        assert list(program.presence.list("room:1")) == ["bob"]
        await running.stop([program])

    asyncio.run(main())


def test_idle_stream_sends_comments_and_ends_with_its_client(cluster: MakeCluster) -> None:
    async def main() -> None:
        running = ClusterPrograms(cluster(0), "server_sent_events.py")
        (program,) = await running.start(1)
        async with served(program, "ann", ping_interval=0.01) as sent, asyncio.timeout(DEADLINE):
            while not (await sent.get()).get("body", b"").startswith(b": ping"):
                pass
            assert program.presence.count("room:1") == 1
        assert program.presence.count("room:1") == 1
        await running.settle()
        assert program.presence.count("room:1") == 0
        await running.stop([program])

    asyncio.run(main())


@pytest.mark.parametrize("worker", [0, 1], ids=["same worker", "other worker"])
def test_user_whose_stream_is_opened_again_does_not_leave(
    cluster: MakeCluster, worker: int
) -> None:
    async def main() -> None:
        running = ClusterPrograms(cluster(0), "server_sent_events.py")
        programs = await running.start(2)
        arrived, departed = [], []

        async def watch() -> None:
            async for diff in programs[1].presence.watch_topics("room:"):
                arrived.extend(diff.arrived)
                departed.extend(diff.departed)

        watching = asyncio.create_task(watch())
        async with served(programs[0], "ann"):
            await running.settle()
        running.cluster.run(2.0)
        for _ in range(10):
            await asyncio.sleep(0)  # the watch reads
        async with served(programs[worker], "ann"):
            await running.settle()  # longer than LINGER
            assert (arrived, departed) == (["ann"], [])
        await running.settle()
        assert (arrived, departed) == (["ann"], ["ann"])
        await running.stop(programs)
        await watching

    asyncio.run(main())


@asynccontextmanager
async def served(
    program: Any, user: str, ping_interval: float = 15
) -> AsyncIterator[asyncio.Queue[Any]]:
    """A stream of a user, whose client disconnects at the end of the block; yields what is sent."""
    sent: asyncio.Queue[Any] = asyncio.Queue()
    gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    response = await program.events("1", user)
    assert response.ping_interval == 15
    response.ping_interval = ping_interval
    answer = asyncio.create_task(response({"type": "http", "method": "GET"}, receive, sent.put))
    while not (await sent.get()).get("body"):
        pass
    yield sent
    gone.set()
    await answer
