"""Presence on the wire: every sentence about it, against a real server."""

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.support.waiting import until

from .leak_check import run
from .phoenix_presence import Presence
from .served_app import ServedApp, served_app, two_served_apps
from .ws_client import WsClient, ws_client

pytestmark = pytest.mark.usefixtures("each_carrier")

STATE = '["3",null,"room:1","presence_state",'
DIFF = '["3",null,"room:1","presence_diff",'


def ref_of(entries: dict[str, Any], key: str) -> str:
    (meta,) = entries[key]["metas"]
    return str(meta["phx_ref"])


def test_presence_state_follows_the_join_reply() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann:
            await ann.ask(
                '["3","3","room:1","phx_join",{"track":"ann","meta":{"device":"phone"}}]',
                '["3","3","room:1","phx_reply",{"status":"ok","response":{}}]',
            )
            state = await ann.payload(STATE)
            assert state == made.presence.list("room:1")
            (meta,) = state["ann"]["metas"]
            assert meta == {"device": "phone", "phx_ref": meta["phx_ref"]}

    run(main())


def test_follow_of_an_empty_topic_sends_an_empty_presence_state() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann:
            await ann.join("room:1", {"follow": True})
            await ann.receives('["3",null,"room:1","presence_state",{}]')
            assert made.keys("room:1") == []

    run(main())


def test_fetched_fields_are_beside_the_metas_in_states_and_diffs() -> None:
    async def fetch(topic: str, entries: dict[str, Any]) -> dict[str, Any]:
        return {key: {"user": {"name": key.upper()}} for key in entries}

    async def main() -> None:
        async with served_app(fetch=fetch) as made, ws_client(made) as ann, ws_client(made) as bob:
            state = await ann.present("room:1", "ann")
            assert state["ann"]["user"] == {"name": "ANN"}
            await bob.present("room:1", "bob")
            diff = await ann.payload(DIFF)
            assert diff["joins"]["bob"]["user"] == {"name": "BOB"}
            await bob.connection.close()
            diff = await ann.payload(DIFF)
            assert diff["leaves"]["bob"]["user"] == {"name": "BOB"}

    run(main())


def test_change_is_sent_as_presence_diff_by_key() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann, ws_client(made) as bob:
            await ann.present("room:1", "ann")
            state = await bob.present("room:1", "bob")
            ref = ref_of(state, "bob")
            meta = f'{{"bob":{{"metas":[{{"phx_ref":"{ref}"}}]}}}}'
            await ann.receives(f'{DIFF}{{"joins":{meta},"leaves":{{}}}}]')
            await bob.connection.close()
            await ann.receives(f'{DIFF}{{"joins":{{}},"leaves":{meta}}}]')

    run(main())


def test_update_is_one_diff_with_phx_ref_prev() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann, ws_client(made) as bob:
            await ann.present("room:1", "ann")
            old = ref_of(await bob.present("room:1", "bob"), "bob")
            await ann.payload(DIFF)
            await bob.send('["3","9","room:1","update",{"away":true}]')
            diff = await ann.payload(DIFF)
            new = ref_of(diff["joins"], "bob")
            assert new != old
            assert diff == {
                "joins": {"bob": {"metas": [{"away": True, "phx_ref_prev": old, "phx_ref": new}]}},
                "leaves": {"bob": {"metas": [{"phx_ref": old}]}},
            }
            await ann.is_alive()

    run(main())


def test_joiner_receives_itself_once() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann:
            state = await ann.present("room:1", "ann")
            assert list(state) == ["ann"]
            made.socket.flush_presences()
            await ann.is_alive()
            await ann.send('["3","9","room:1","untrack",{}]')
            await ann.receives('["3","9","room:1","phx_reply",{"status":"ok","response":{}}]')
            diff = await ann.payload(DIFF)
            assert (diff["joins"], list(diff["leaves"])) == ({}, ["ann"])

    run(main())


def test_track_after_the_join_sends_the_presence_state() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann:
            await ann.join("room:1")
            await ann.is_alive()
            await ann.send('["3","9","room:1","track",{"key":"ann"}]')
            frames = [json.loads(await ann.read()) for _ in range(2)]
            assert {frame[3] for frame in frames} == {"phx_reply", "presence_state"}
            assert list(frames[1][4]) == ["ann"]

    run(main())


def test_disconnected_client_leaves_on_every_node_at_once(cluster_name: str) -> None:
    async def main() -> None:
        async with (
            two_served_apps(cluster_name) as (one, two),
            ws_client(one) as ann,
            ws_client(two) as bob,
        ):
            await ann.present("room:1", "ann")
            await until(lambda: one.keys("room:1") == two.keys("room:1") == ["ann"])
            state = await bob.present("room:1", "bob")
            assert list(state) == ["ann", "bob"]
            diff = await ann.payload(DIFF)
            assert diff["joins"]["bob"] == state["bob"]
            ann.connection.transport.abort()
            diff = await bob.payload(DIFF)
            assert (diff["joins"], diff["leaves"]) == ({}, {"ann": state["ann"]})

    run(main())


async def fold_until(client: WsClient, presence: Presence, made: ServedApp, count: int) -> None:
    """Read until somebody knows of so many."""
    while (
        presence.refs()
        != {
            meta["phx_ref"]
            for entry in made.presence.list("room:1").values()
            for meta in entry["metas"]
        }
        or len(made.keys("room:1")) != count
    ):
        presence.take(json.loads(await client.read()))


def test_join_storm_sends_each_ref_to_each_client_exactly_once() -> None:
    count = 60

    async def join(
        stack: AsyncExitStack, made: ServedApp, number: int
    ) -> tuple[WsClient, Presence]:
        client = await stack.enter_async_context(ws_client(made))
        key = f"user:{number % 20}"  # so there are several metas under a key
        await client.send(json.dumps(["3", "3", "room:1", "phx_join", {"track": key}]))
        assert json.loads(await client.read())[3] == "phx_reply"
        return client, Presence("3")

    async def main() -> None:
        async with served_app() as made, AsyncExitStack() as stack:
            joined = await asyncio.gather(*[join(stack, made, n) for n in range(count)])
            await asyncio.gather(*[fold_until(*pair, made, 20) for pair in joined])
            for _, presence in joined:
                assert presence.joined == presence.refs()  # no ref was announced twice: see there
                assert presence.state == made.presence.list("room:1")
            leavers, stayers = joined[::2], joined[1::2]
            await asyncio.gather(*[client.connection.close() for client, _ in leavers])
            await until(lambda: made.socket.stats()["connections"] == len(stayers))
            left = len(made.keys("room:1"))
            await asyncio.gather(*[fold_until(*pair, made, left) for pair in stayers])
            for _, presence in stayers:
                assert presence.state == made.presence.list("room:1")

    run(main())


def test_changes_under_load_are_batched_into_few_diffs() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann:
            await ann.present("room:1", "ann")
            for number in range(200):
                made.presence.track("room:1", f"user:{number}", owner=None)
            frames, seen = 0, 0
            while seen < 200:
                seen += len((await ann.payload(DIFF))["joins"])
                frames += 1
            assert frames <= 2

    run(main())
