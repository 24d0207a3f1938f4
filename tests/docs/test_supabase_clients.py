"""Unmodified clients of Supabase Realtime at two workers: broadcasts, presences, tokens, restarts.

All kinds of clients are in one room, so each sees what the others send.
"""

import asyncio
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.support.waiting import DEADLINE, until

from .supabase_clients import (
    API_KEY,
    JWT_SECRET,
    KINDS,
    RealtimeClient,
    connected,
    one_client,
    pushed,
    token,
    workers_of,
)
from .supabase_packages import COMPAT, VERSIONS
from .worker_server import WorkerServer, kill, receive, worker_server

pytestmark = pytest.mark.processes

needs_compat = pytest.mark.skipif(not COMPAT, reason="COMPAT=1 runs it")
TOPIC = "room:of:all"
#: The configuration of a channel that asks for no presences.
SILENT = {"presence": {"key": "", "enabled": False}}
SECRETS = {"SUPABASE_ANON_KEY": API_KEY, "SUPABASE_JWT_SECRET": JWT_SECRET}


@pytest.fixture(scope="module")
def server() -> Iterator[WorkerServer]:
    with worker_server("supabase_realtime:app", **SECRETS) as running:
        yield running


def presence_key(client: RealtimeClient, **more: Any) -> dict[str, Any]:
    """The configuration of a channel whose presence has the kind of the client as its key."""
    return {"presence": {"key": client.kind}, **more}


def test_broadcasts_reach_all_kinds_of_clients_and_with_self_their_sender(
    server: WorkerServer,
) -> None:
    async def main() -> None:
        async with connected(server) as clients:
            new, old, pypi = clients
            echoes = {"broadcast": {"self": True, "ack": True}}
            for client, config in ((new, echoes), (old, {}), (pypi, {})):
                assert await client.ask("subscribe", topic=TOPIC, config=config) == "SUBSCRIBED"
            for client in clients:
                await client.ask("send", topic=TOPIC, event="cursor", payload={"of": client.kind})
            for client in clients:
                others = [one.kind for one in clients if one is new or one is not client]
                await has_heard(client, [["cursor", {"of": kind}] for kind in others])
            # Bytes reach clients of version 2, which send them in their own frames.
            assert await new.ask("send", topic=TOPIC, event="file", bytes=[0, 255]) == "ok"
            sent = [["cursor", {"of": kind}] for kind in KINDS] + [["file", {"bytes": [0, 255]}]]
            await has_heard(new, sent)

    asyncio.run(main())


def test_binary_broadcast_reaches_a_client_at_another_worker(server: WorkerServer) -> None:
    async def main() -> None:
        async with connected(server, ["new", "new"]) as (one, other):
            for client in (one, other):
                await client.ask("subscribe", topic="files")
            await one.ask("send", topic="files", event="größe", bytes=[1, 2, 3])
            await other.sees("files", "broadcasts", [["größe", {"bytes": [1, 2, 3]}]])
            await one.sees("files", "broadcasts", [])

    asyncio.run(main())


def raw_client(server: WorkerServer) -> connect:
    """A connection that sends and receives frames as they are."""
    url = server.url(f"/realtime/v1/websocket?vsn=2.0.0&apikey={API_KEY}", "ws")
    return connect(url, proxy=None)


async def join(client: ClientConnection, topic: str, config: dict[str, Any]) -> None:
    await client.send(json.dumps(["1", "1", topic, "phx_join", {"config": config}]))
    reply = await receive(client, lambda frame: frame[3] == "phx_reply")
    assert reply[4] == {"status": "ok", "response": {"postgres_changes": []}}


def test_binary_frames_have_the_kinds_of_realtime_js(server: WorkerServer) -> None:
    async def main() -> None:
        topic = "realtime:binary"
        async with raw_client(server) as ann, raw_client(server) as bob:
            await join(ann, topic, {"broadcast": {"self": True, "ack": True}, **SILENT})
            await join(bob, topic, SILENT)
            await ann.send(pushed(["1", "2", topic, "file"], 0, b"\x00\xff"))
            sent = bytes([4, len(topic), 4, 0, 0]) + topic.encode() + b"file\x00\xff"
            assert await bob.recv() == await ann.recv() == sent
            reply = ["1", "2", topic, "phx_reply", {"status": "ok", "response": {}}]
            assert json.loads(await ann.recv()) == reply
            await bob.send(pushed(["1", "2", topic, "say"], 1, b'{"n":1}'))
            said = {"type": "broadcast", "event": "say", "payload": {"n": 1}}
            assert json.loads(await ann.recv()) == [None, None, topic, "broadcast", said]

    asyncio.run(asyncio.wait_for(main(), DEADLINE))


def test_presences_are_sent_only_once_they_are_enabled_or_tracked(server: WorkerServer) -> None:
    async def main() -> None:
        topic = "realtime:silent"
        async with raw_client(server) as ann:
            await join(ann, topic, SILENT)
            await ann.send('[null,"2","phoenix","heartbeat",{}]')
            assert json.loads(await ann.recv())[:4] == [None, "2", "phoenix", "phx_reply"]
            track = {"event": "track", "payload": {}}
            await ann.send(json.dumps(["1", "3", topic, "presence", track]))
            events = {json.loads(await ann.recv())[3] for _ in range(2)}
            assert events == {"phx_reply", "presence_state"}

    asyncio.run(asyncio.wait_for(main(), DEADLINE))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x03",
        b"\x00\x01\x01\x01\x09" + b"11tbroadcast",
        pushed(["1", "2", TOPIC, "file"], 0, b"")[:-1],
        pushed(["1", "2", TOPIC, "say"], 1, b"{"),
        pushed(["1", "2", TOPIC, "say"], 1, b"[" * 60_000),
        pushed(["1", "2", "", "say"], 1, b"{}"),
    ],
)
def test_malformed_binary_message_ends_the_connection(server: WorkerServer, data: bytes) -> None:
    async def main() -> None:
        async with raw_client(server) as client:
            await client.send(data)
            await client.wait_closed()
            assert client.close_code == 1011

    asyncio.run(asyncio.wait_for(main(), DEADLINE))


def test_presences_sync_join_and_leave_at_all_kinds_of_clients(server: WorkerServer) -> None:
    async def main() -> None:
        async with connected(server) as clients:
            state: dict[str, list[Any]] = {}
            for client in clients:
                await client.ask("subscribe", topic=TOPIC, config=presence_key(client))
                assert await client.ask("track", topic=TOPIC, meta={"n": 1}) == "ok"
                state[client.kind] = [{"n": 1}]
                for other in clients[: len(state)]:
                    await other.sees(TOPIC, "state", state)
            first = clients[0]
            # Tracking again replaces the meta.
            await first.ask("track", topic=TOPIC, meta={"n": 2})
            state[first.kind] = [{"n": 2}]
            for client in clients:
                await client.sees(TOPIC, "state", state)
            await first.ask("untrack", topic=TOPIC)
            del state[first.kind]
            for client in clients:
                await client.sees(TOPIC, "state", state)
            # After that it can be tracked again; a client that leaves is seen to leave.
            await first.ask("track", topic=TOPIC, meta={"n": 3})
            await clients[1].ask("leave", topic=TOPIC)
            state = {first.kind: [{"n": 3}], clients[2].kind: [{"n": 1}]}
            await clients[2].sees(TOPIC, "state", state)
            told = (await clients[2].ask("look", topic=TOPIC))["presences"]
            assert ["sync"] in told
            assert [each for each in told if each[1:2] == [first.kind]] == [
                ["join", first.kind, [{"n": 1}]],
                ["join", first.kind, [{"n": 2}]],
                ["leave", first.kind, [{"n": 1}]],
                ["leave", first.kind, [{"n": 2}]],
                ["join", first.kind, [{"n": 3}]],
            ]

    asyncio.run(main())


def test_tokens_are_checked_at_the_join_and_at_each_renewal(server: WorkerServer) -> None:
    async def main() -> None:
        async with connected(server) as clients:
            private = {"private": True}
            for client in clients:
                await client.ask("subscribe", topic="1", config=private)
                seen = await client.ask("look", topic="1")
                assert {*seen["statuses"]} == {"CHANNEL_ERROR"}  # it joins again after a second
                assert "Unauthorized" in seen["errors"][0]
                await client.connect(token())
                assert await client.ask("subscribe", topic="2", config=private) == "SUBSCRIBED"
                await client.ask("authorise", token=token("bob"))
                await client.ask("send", topic="2", event="still", payload={})
                await client.ask("authorise", token=token(aud="another"))
                await until(partial(has_closed, client, "2"), f"{client.kind} is closed")
                (line,) = (await client.ask("look", topic="2"))[
                    "errors" if client.kind == "pypi" else "system"
                ]
                assert "InvalidJWTToken: Audience doesn't match" in str(line)

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_postgres_changes_are_refused_with_a_reason(server: WorkerServer, kind: str) -> None:
    async def main() -> None:
        async with one_client(kind, server) as client:
            await client.connect()
            await client.ask("subscribe", topic="db", table="users")
            seen = await client.ask("look", topic="db")
            assert {*seen["statuses"]} == {"CHANNEL_ERROR"}  # it joins again after a second
            assert "postgres_changes: this server has no database" in seen["errors"][0]

    asyncio.run(main())


def test_clients_reconnect_rejoin_and_track_again_after_their_worker_is_killed(
    server: WorkerServer,
) -> None:
    async def main() -> None:
        async with connected(server) as clients:
            for client in clients:
                config = presence_key(client)
                await client.ask("subscribe", topic=TOPIC, config=config, meta={"n": 1})
            for worker in await workers_of(server.port, len(clients)):
                kill(worker)
            for client in clients:
                await client.sees(TOPIC, "subscribed", 2)
            for client in clients:
                await client.sees(TOPIC, "state", {kind: [{"n": 1}] for kind in KINDS})

    asyncio.run(main())


@needs_compat
def test_clients_come_back_after_the_whole_server_was_killed_and_started_again() -> None:
    async def main() -> None:
        with worker_server("supabase_realtime:app", **SECRETS) as first:
            async with connected(first) as clients:
                for client in clients:
                    config = presence_key(client)
                    await client.ask("subscribe", topic=TOPIC, config=config, meta={"n": 1})
                first.kill()
                with worker_server("supabase_realtime:app", first.port, **SECRETS):
                    for client in clients:  # they wait for up to 10 s before each attempt
                        await until(partial(client.ask, "connected"), f"{client.kind} is back")
                    for client in clients:
                        await client.sees(TOPIC, "subscribed", 2)
                    for client in clients:
                        await client.sees(TOPIC, "state", {kind: [{"n": 1}] for kind in KINDS})

    asyncio.run(main())


@needs_compat
@pytest.mark.parametrize("version", VERSIONS)
def test_version_of_realtime_js_broadcasts_and_is_present(
    server: WorkerServer, version: str
) -> None:
    async def main() -> None:
        async with one_client(version, server) as client:
            await client.connect(token())
            config = presence_key(client, private=True, broadcast={"self": True, "ack": True})
            assert await client.ask("subscribe", topic=version, config=config) == "SUBSCRIBED"
            assert await client.ask("send", topic=version, event="say", payload={"n": 1}) == "ok"
            await client.sees(version, "broadcasts", [["say", {"n": 1}]])
            for number in (1, 2):
                assert await client.ask("track", topic=version, meta={"n": number}) == "ok"
                await client.sees(version, "state", {version: [{"n": number}]})
            assert await client.ask("untrack", topic=version) == "ok"
            await client.sees(version, "state", {})

    asyncio.run(main())


async def has_heard(client: RealtimeClient, broadcasts: list[Any]) -> None:
    """Wait until a client was sent exactly these broadcasts, in any order of their senders."""

    async def right() -> bool:
        heard = (await client.ask("look", topic=TOPIC))["broadcasts"]
        return sorted(map(str, heard)) == sorted(map(str, broadcasts))

    await until(right, f"{client.kind} hears {broadcasts}")


async def has_closed(client: RealtimeClient, topic: str) -> bool:
    seen = await client.ask("look", topic=topic)
    return bool(seen["statuses"][-1] == "CLOSED")
