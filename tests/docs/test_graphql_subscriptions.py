"""GraphQL subscriptions over graphql-transport-ws, with clients at two workers."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from adsum.testing import MakeCluster
from tests.support.waiting import DEADLINE, until

from .cluster_programs import ClusterPrograms
from .worker_server import WorkerServer, kill, worker_server

processes = pytest.mark.processes
PROTOCOL = Subprotocol("graphql-transport-ws")
PRESENCE = 'subscription { presence(room: "%s", user: "%s") { joins leaves } }'
OBSERVE = 'subscription { presence(room: "%s") { joins leaves } }'
MESSAGES = 'subscription { messages(room: "%s") { user text } }'
SAY = 'mutation { say(room: "%s", user: "ann", text: "%s") }'
USERS = '{ users(room: "%s") }'


@pytest.fixture(scope="module")
def server() -> Iterator[WorkerServer]:
    with worker_server("graphql_subscriptions:app") as running:
        yield running


class Client:
    """One connection; its operations are named by their numbers."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self._ids = map(str, itertools.count(1))
        self._received: list[dict[str, Any]] = []

    async def subscribe(self, query: str) -> str:
        """Begin an operation; returns its name."""
        id = next(self._ids)
        await self._send({"type": "subscribe", "id": id, "payload": {"query": query}})
        return id

    async def complete(self, id: str) -> None:
        """Cancel an operation."""
        await self._send({"type": "complete", "id": id})

    async def next(self, id: str) -> Any:
        """The value of the next result of an operation."""
        async with asyncio.timeout(DEADLINE):
            while not (found := [one for one in self._received if one.get("id") == id]):
                self._received.append(json.loads(await self.connection.recv()))
        self._received.remove(found[0])
        assert found[0]["type"] == "next", found[0]
        (value,) = found[0]["payload"]["data"].values()
        return value

    async def sees(self, id: str, *users: str, known: tuple[str, ...] = ()) -> None:
        """Receive changes until exactly these users are present."""
        present = {*known}
        while present != {*users}:
            change = await self.next(id)
            assert not present & {*change["joins"]}
            present = present - {*change["leaves"]} | {*change["joins"]}

    async def _send(self, message: dict[str, Any]) -> None:
        await self.connection.send(json.dumps(message))


@asynccontextmanager
async def client(server: WorkerServer) -> AsyncIterator[Client]:
    url = server.url("/graphql", "ws")
    async with connect(url, proxy=None, subprotocols=[PROTOCOL]) as connection:
        await connection.send(json.dumps({"type": "connection_init"}))
        assert json.loads(await connection.recv())["type"] == "connection_ack"
        yield Client(connection)


@asynccontextmanager
async def on_two_workers(server: WorkerServer) -> AsyncIterator[list[Client]]:
    async with AsyncExitStack() as stack:
        found: dict[int, Client] = {}
        async with asyncio.timeout(DEADLINE):
            while len(found) < 2:
                one = await stack.enter_async_context(client(server))
                if found.setdefault(await server.worker_of(one.connection), one) is not one:
                    await one.connection.close()
        yield list(found.values())


@processes
def test_presence_yields_joins_and_leaves_of_users_at_all_workers(server: WorkerServer) -> None:
    async def main() -> None:
        async with on_two_workers(server) as (ann, bob):
            anns = await ann.subscribe(PRESENCE % ("1", "ann"))
            bobs = await bob.subscribe(PRESENCE % ("1", "bob"))
            await ann.sees(anns, "ann", "bob")
            await bob.sees(bobs, "ann", "bob")
            async with client(server) as eve:
                eves = await eve.subscribe(PRESENCE % ("1", "eve"))
                await eve.sees(eves, "ann", "bob", "eve")
                assert await ann.next(anns) == {"joins": ["eve"], "leaves": []}
            assert await ann.next(anns) == {"joins": [], "leaves": ["eve"]}  # after LINGER

    asyncio.run(main())


@processes
def test_user_who_connects_again_does_not_leave(server: WorkerServer) -> None:
    async def main() -> None:
        async with on_two_workers(server) as (ann, bob):
            watching = await ann.subscribe(OBSERVE % "5")
            assert await ann.next(watching) == {"joins": [], "leaves": []}
            for count in range(4):  # the new connection reaches any worker
                async with client(server) as eve:
                    eves = await eve.subscribe(PRESENCE % ("5", "eve"))
                    assert "eve" in (await eve.next(eves))["joins"]
                    if not count:
                        assert await ann.next(watching) == {"joins": ["eve"], "leaves": []}
            async with client(server) as eve:
                eves = await eve.subscribe(PRESENCE % ("5", "eve"))
                assert "eve" in (await eve.next(eves))["joins"]
                await bob.subscribe(PRESENCE % ("5", "bob"))
                assert await ann.next(watching) == {"joins": ["bob"], "leaves": []}

    asyncio.run(main())


@processes
def test_user_who_completes_leaves_before_one_whose_connection_was_lost_earlier(
    server: WorkerServer,
) -> None:
    async def main() -> None:
        async with on_two_workers(server) as (ann, bob):
            watching = await ann.subscribe(OBSERVE % "6")
            assert await ann.next(watching) == {"joins": [], "leaves": []}
            bobs = await bob.subscribe(PRESENCE % ("6", "bob"))
            async with client(server) as eve:
                await eve.subscribe(PRESENCE % ("6", "eve"))
                await ann.sees(watching, "bob", "eve")
            await bob.complete(bobs)
            assert await ann.next(watching) == {"joins": [], "leaves": ["bob"]}
            assert await ann.next(watching) == {"joins": [], "leaves": ["eve"]}

    asyncio.run(main())


@processes
def test_cancelled_subscription_ends_its_presence_and_no_other_operation(
    server: WorkerServer,
) -> None:
    async def main() -> None:
        async with on_two_workers(server) as (ann, bob):
            watching = await ann.subscribe(OBSERVE % "2")
            assert await ann.next(watching) == {"joins": [], "leaves": []}
            first, second = [await bob.subscribe(PRESENCE % ("2", user)) for user in ("bob", "eve")]
            await ann.sees(watching, "bob", "eve")
            await bob.complete(first)
            assert await ann.next(watching) == {"joins": [], "leaves": ["bob"]}
            await bob.complete(second)
            assert await ann.next(watching) == {"joins": [], "leaves": ["eve"]}
            await until(lambda: ask(server, USERS % "2") == {"users": []}, "all have left")

    asyncio.run(main())


@processes
def test_message_of_a_mutation_reaches_subscribers_at_all_workers(server: WorkerServer) -> None:
    async def main() -> None:
        async with on_two_workers(server) as clients:
            ids = [await one.subscribe(MESSAGES % "3") for one in clients]
            reading = [
                asyncio.create_task(one.next(id)) for one, id in zip(clients, ids, strict=True)
            ]

            async def said() -> bool:  # nothing says that a subscription has begun
                answer = await asyncio.to_thread(ask, server, SAY % ("3", "hi"))
                assert answer.keys() == {"say"}
                return all(task.done() for task in reading)

            await until(said, "both have the message")
            assert [task.result() for task in reading] == [{"user": "ann", "text": "hi"}] * 2

    asyncio.run(main())


@processes
def test_killed_worker_leaves_no_ghost(server: WorkerServer) -> None:
    async def main() -> None:
        async with on_two_workers(server) as (dying, other):
            await dying.subscribe(PRESENCE % ("4", "ann"))
            bobs = await other.subscribe(PRESENCE % ("4", "bob"))
            await other.sees(bobs, "ann", "bob")
            kill(await server.worker_of(dying.connection))
            assert await other.next(bobs) == {"joins": [], "leaves": ["ann"]}

    asyncio.run(main())


def test_changes_are_merged_for_a_slow_reader_and_the_end_of_it_ends_the_presence(
    cluster: MakeCluster,
) -> None:
    async def main() -> None:
        running = ClusterPrograms(cluster(0), "graphql_subscriptions.py")
        (program,) = await running.start(1)
        context = {"request": None}
        results = await program.schema.subscribe(PRESENCE % ("1", "ann"), context_value=context)
        assert (await anext(results)).data["presence"] == {"joins": ["ann"], "leaves": []}
        for number in range(1000):
            with program.presences.track("room:1", f"user {number}"):
                await asyncio.sleep(0)
        with program.presences.track("room:1", "bob"):
            await running.settle()
            assert (await anext(results)).data["presence"] == {"joins": ["bob"], "leaves": []}
            await results.aclose()
            await running.settle()  # longer than LINGER
            assert list(program.presences.list("room:1")) == ["bob"]
        await running.stop([program])

    asyncio.run(main())


def ask(server: WorkerServer, query: str) -> Any:
    """The data of the answer to a query or mutation, of any worker."""
    return server.post("/graphql", {"query": query})["data"]


@pytest.mark.parametrize("user", ["", "x" * 1100])
def test_wrong_name_is_answered_with_an_error_and_leaves_no_presence(
    cluster: MakeCluster, user: str
) -> None:
    async def main() -> None:
        running = ClusterPrograms(cluster(0), "graphql_subscriptions.py")
        (program,) = await running.start(1)
        results = await program.schema.subscribe(PRESENCE % ("1", user))
        async with asyncio.timeout(DEADLINE):
            (error,) = (await anext(results)).errors
        assert "key must have 1 to 1024 characters" in error.message
        answer = await program.schema.execute(USERS % ("x" * 1100))
        assert "topic must have 1 to 1024 characters" in answer.errors[0].message
        assert program.presences.list("room:1") == {}
        await running.stop([program])

    asyncio.run(main())
