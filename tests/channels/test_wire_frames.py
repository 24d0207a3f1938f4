"""The table of frames, row by row, against a real server and byte for byte."""

import json

import pytest

from tests.support.waiting import until

from .captured_log import Log
from .leak_check import run
from .served_app import served_app, two_served_apps
from .ws_client import ws_client

pytestmark = pytest.mark.usefixtures("each_carrier")

JOINED = '["3","3","room:1","phx_reply",{"status":"ok","response":{}}]'
JOIN = '["3","3","room:1","phx_join",{}]'


def test_heartbeat_is_answered_on_the_topic_phoenix() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann:
            await ann.ask(
                '[null,"7","phoenix","heartbeat",{}]',
                '[null,"7","phoenix","phx_reply",{"status":"ok","response":{}}]',
            )

    run(main())


def test_join_reply_has_the_response_of_the_channel() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann:
            await ann.ask(JOIN, JOINED)
            await ann.ask(
                '["4","5","room:2","phx_join",{"response":{"n":1}}]',
                '["4","5","room:2","phx_reply",{"status":"ok","response":{"n":1}}]',
            )

    run(main())


def test_refused_join_is_answered_with_the_reason() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann:
            await ann.ask(
                '["3","3","room:1","phx_join",{"refuse":"unauthorized"}]',
                '["3","3","room:1","phx_reply",'
                '{"status":"error","response":{"reason":"unauthorized"}}]',
            )
            await ann.ask(
                '["3","4","room:1","phx_join",{"refuse":{"code":7}}]',
                '["3","4","room:1","phx_reply",{"status":"error","response":{"code":7}}]',
            )
            await ann.ask(
                '["3","9","room:1","echo",{}]',
                '[null,"9","room:1","phx_reply",'
                '{"status":"error","response":{"reason":"unmatched topic"}}]',
            )
            assert made.ends == []

    run(main())


def test_join_that_raises_is_answered_with_join_crashed() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann:
            await ann.ask(
                '["3","3","room:1","phx_join",{"crash":1}]',
                '["3","3","room:1","phx_reply",'
                '{"status":"error","response":{"reason":"join crashed"}}]',
            )
            await ann.is_alive()

    run(main())


@pytest.mark.parametrize("topic", ["nope:1", "room", "room:", "room:a:b", "phoenix", "aroom:1"])
def test_join_of_an_unserved_topic_is_answered_unmatched_topic(topic: str) -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann:
            await ann.ask(
                f'["3","3","{topic}","phx_join",{{}}]',
                f'[null,"3","{topic}","phx_reply",'
                '{"status":"error","response":{"reason":"unmatched topic"}}]',
            )

    run(main())


def test_event_reply_has_the_response_of_its_handler() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann:
            await ann.ask(JOIN, JOINED)
            await ann.ask(
                '["3","9","room:1","echo",{"a":[1,"x",null]}]',
                '["3","9","room:1","phx_reply",{"status":"ok","response":{"a":[1,"x",null]}}]',
            )
            await ann.ask(
                '["3","10","room:1","refuse","no"]',
                '["3","10","room:1","phx_reply",{"status":"error","response":{"reason":"no"}}]',
            )
            await ann.ask(
                '["3","11","room:1","refuse",{"code":7}]',
                '["3","11","room:1","phx_reply",{"status":"error","response":{"code":7}}]',
            )

    run(main())


def test_event_whose_handler_returns_none_gets_no_reply() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann:
            await ann.ask(JOIN, JOINED)
            await ann.send('["3","9","room:1","mute",{}]')
            await ann.ask(  # the channel's events are handled in order, so this is the next frame
                '["3","10","room:1","echo",{}]',
                '["3","10","room:1","phx_reply",{"status":"ok","response":{}}]',
            )

    run(main())


def test_event_on_an_unjoined_topic_is_answered_unmatched_topic() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann:
            unmatched = '{"status":"error","response":{"reason":"unmatched topic"}}'
            await ann.ask(
                '["3","9","room:1","echo",{}]', f'[null,"9","room:1","phx_reply",{unmatched}]'
            )
            await ann.ask(
                '["3","9","nope:1","echo",{}]', f'[null,"9","nope:1","phx_reply",{unmatched}]'
            )
            await ann.ask(
                '[null,"9","phoenix","echo",{}]', f'[null,"9","phoenix","phx_reply",{unmatched}]'
            )

    run(main())


def test_leave_is_answered_then_phx_close_is_sent_with_the_join_ref() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann:
            await ann.present("room:1", "ann")
            await ann.ask(
                '["3","10","room:1","phx_leave",{}]',
                '["3","10","room:1","phx_reply",{"status":"ok","response":{}}]',
                '["3","3","room:1","phx_close",{}]',
            )
            assert made.keys("room:1") == []
            await until(lambda: made.ends == [("room:1", "left")])
            await ann.is_alive()

    run(main())


def test_leave_of_an_unjoined_topic_is_answered_ok() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann:
            await ann.ask(
                '["3","10","room:1","phx_leave",{}]',
                '["3","10","room:1","phx_reply",{"status":"ok","response":{}}]',
            )
            await ann.ask(
                '["3","11","nope:1","phx_leave",{}]',
                '["3","11","nope:1","phx_reply",{"status":"ok","response":{}}]',
            )
            await ann.is_alive()

    run(main())


def test_broadcast_without_refs_reaches_all_clients_of_the_topic() -> None:
    async def main() -> None:
        async with (
            served_app() as made,
            ws_client(made) as ann,
            ws_client(made) as bob,
            ws_client(made) as eve,
        ):
            for ref, client, topic in (
                ("3", ann, "room:1"),
                ("4", bob, "room:1"),
                ("5", eve, "room:2"),
            ):
                await client.join(topic, ref=ref)
            await ann.send('["3","9","room:1","shout",{"text":"hi"}]')
            for client in ann, bob:
                await client.receives('[null,null,"room:1","shout",{"text":"hi"}]')
            await made.socket.broadcast("room:1", "news", {"n": 1})
            for client in ann, bob:
                await client.receives('[null,null,"room:1","news",{"n":1}]')
            await eve.is_alive()

    run(main())


def test_broadcast_from_excludes_its_sender() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann, ws_client(made) as bob:
            await ann.join("room:1")
            await bob.join("room:1")
            await ann.send('["3","9","room:1","whisper",{}]')
            await bob.receives('[null,null,"room:1","shout",{}]')
            await ann.is_alive()

    run(main())


def test_broadcast_reaches_clients_of_every_node(cluster_name: str) -> None:
    async def main() -> None:
        async with (
            two_served_apps(cluster_name) as (one, two),
            ws_client(one) as ann,
            ws_client(two) as bob,
        ):
            await ann.join("room:1")
            await bob.join("room:1")
            for event in "shout", "whisper":
                await bob.send(f'["3","9","room:1","{event}",{{"by":"{event}"}}]')
                await ann.receives(f'[null,null,"room:1","shout",{{"by":"{event}"}}]')
            await bob.receives('[null,null,"room:1","shout",{"by":"shout"}]')
            await two.socket.broadcast("room:1", "news", b"\x01\xff")
            for client in ann, bob:
                await client.receives(b"\x02\x06\x04room:1news\x01\xff")

    run(main())


def test_push_has_the_join_ref_and_no_ref() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann, ws_client(made) as bob:
            await ann.join("room:1")
            await bob.join("room:1")
            await ann.ask(
                '["3","9","room:1","tell me",{"n":1}]', '["3",null,"room:1","told",{"n":1}]'
            )
            await bob.is_alive()

    run(main())


@pytest.mark.parametrize("event", ["crash", "what nobody handles", "phx_reply"])
def test_handler_crash_ends_only_its_channel_and_presences_leave(event: str, log: Log) -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann:
            await ann.present("room:1", "ann")
            await ann.present("room:2", "ann", ref="4")
            await ann.ask(
                f'["3","9","room:1","{event}",{{"marker":1}}]', '["3","3","room:1","phx_error",{}]'
            )
            assert made.keys("room:1") == []
            assert made.keys("room:2") == ["ann"]
            await until(lambda: made.ends == [("room:1", "crashed")])
            await ann.is_alive()
            await ann.ask(
                '["4","10","room:2","echo",{}]',
                '["4","10","room:2","phx_reply",{"status":"ok","response":{}}]',
            )
            await ann.present("room:1", "ann", ref="11")
            assert len(log.lines) == 1
            assert "marker" not in log.everything

    run(main())


def test_channel_stop_sends_phx_close_after_the_reply() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann:
            await ann.present("room:1", "ann")
            await ann.ask(
                '["3","9","room:1","halt",{}]',
                '["3","9","room:1","phx_reply",{"status":"ok","response":{"bye":true}}]',
                '["3","3","room:1","phx_close",{}]',
            )
            assert made.keys("room:1") == []
            await until(lambda: made.ends == [("room:1", "stopped")])
            await ann.is_alive()

    run(main())


def test_rejoin_replaces_old_channel() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann, ws_client(made) as bob:
            await bob.present("room:1", "bob")
            first = await ann.present("room:1", "ann")
            old = first["ann"]["metas"][0]["phx_ref"]
            await bob.payload('["3",null,"room:1","presence_diff",')
            await ann.send('["8","8","room:1","phx_join",{"track":"ann"}]')
            await ann.receives(
                '["3","3","room:1","phx_close",{}]',
                '["8","8","room:1","phx_reply",{"status":"ok","response":{}}]',
            )
            state = await ann.payload('["8",null,"room:1","presence_state",')
            (meta,) = state["ann"]["metas"]
            assert meta["phx_ref"] != old
            await until(lambda: made.ends == [("room:1", "replaced")])
            joins, leaves = list[str](), list[str]()
            while not joins or not leaves:  # one diff or two
                diff = await bob.payload('["3",null,"room:1","presence_diff",')
                joins += [m["phx_ref"] for e in diff["joins"].values() for m in e["metas"]]
                leaves += [m["phx_ref"] for e in diff["leaves"].values() for m in e["metas"]]
            assert (joins, leaves) == ([meta["phx_ref"]], [old])
            await ann.ask(
                '["8","9","room:1","echo",{}]',
                '["8","9","room:1","phx_reply",{"status":"ok","response":{}}]',
            )
            assert made.keys("room:1") == ["ann", "bob"]
            await ann.ask(  # what is for the old one is not for the new one
                '["3","10","room:1","echo",{}]',
                '[null,"10","room:1","phx_reply",'
                '{"status":"error","response":{"reason":"unmatched topic"}}]',
            )

    run(main())


def test_integer_refs_are_echoed_unchanged() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann:
            await ann.ask(
                '[null,7,"phoenix","heartbeat",{}]',
                '[null,7,"phoenix","phx_reply",{"status":"ok","response":{}}]',
            )
            await ann.ask(
                '[3,3,"room:1","phx_join",{}]',
                '[3,3,"room:1","phx_reply",{"status":"ok","response":{}}]',
            )
            await ann.ask(
                '[3,4,"room:1","echo",{"a":1}]',
                '[3,4,"room:1","phx_reply",{"status":"ok","response":{"a":1}}]',
            )
            await ann.ask(
                '[3,5,"room:1","phx_leave",{}]',
                '[3,5,"room:1","phx_reply",{"status":"ok","response":{}}]',
                '[3,3,"room:1","phx_close",{}]',
            )

    run(main())


def test_ping_is_answered_with_pong() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann:
            pong = await ann.connection.ping(b"are you there")
            await pong

    run(main())


def test_binary_push_gets_the_documented_binary_reply() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann:
            await ann.join("room:lobby", ref="30")
            await ann.ask(
                bytes.fromhex("00 02 02 0a 03") + b"3035room:lobbybin" + b"\x01\x02\x03\xff",
                bytes.fromhex("01 02 02 0a 02") + b"3035room:lobbyok" + b"\x01\x02\x03\xff",
            )

    run(main())


def test_bytes_are_broadcast_and_pushed_as_binary_frames() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann:
            await ann.join("room:1")
            await ann.ask(
                b"\x00\x01\x01\x06\x05" + b"39room:1shout\x01\xff",
                b"\x02\x06\x05" + b"room:1shout\x01\xff",
            )
            await ann.ask(
                b"\x00\x01\x01\x06\x07" + b"39room:1tell me\x01\xff",
                b"\x00\x01\x06\x04" + b"3room:1told\x01\xff",
            )
            await ann.ask(  # no payload is a payload too
                b"\x00\x01\x01\x06\x03" + b"39room:1bin", b"\x01\x01\x01\x06\x02" + b"39room:1ok"
            )

    run(main())


@pytest.mark.parametrize("query", ["vsn=1.0.0", "", "user=ann"])
def test_v1_frames_are_objects_without_join_refs(query: str) -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made, query) as ann:
            await ann.ask(
                '{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}',
                '{"topic":"phoenix","event":"phx_reply",'
                '"payload":{"status":"ok","response":{}},"ref":"1"}',
            )
            await ann.ask(
                '{"topic":"room:1","event":"phx_join","payload":{},"ref":"3","join_ref":"3"}',
                '{"topic":"room:1","event":"phx_reply",'
                '"payload":{"status":"ok","response":{}},"ref":"3"}',
            )
            await ann.ask(
                '{"topic":"room:1","event":"shout","payload":{"a":1},"ref":"4","join_ref":"3"}',
                '{"topic":"room:1","event":"shout","payload":{"a":1},"ref":null}',
            )
            await ann.ask(
                '{"topic":"room:1","event":"tell me","payload":{"a":1},"ref":"5"}',
                '{"topic":"room:1","event":"told","payload":{"a":1},"ref":null}',
            )
            await ann.ask(
                '{"topic":"nope","event":"phx_join","payload":{},"ref":"6","join_ref":"6"}',
                '{"topic":"nope","event":"phx_reply","payload":'
                '{"status":"error","response":{"reason":"unmatched topic"}},"ref":"6"}',
            )
            await ann.ask(
                '{"topic":"room:1","event":"phx_leave","payload":{},"ref":"7","join_ref":"3"}',
                '{"topic":"room:1","event":"phx_reply",'
                '"payload":{"status":"ok","response":{}},"ref":"7"}',
                '{"topic":"room:1","event":"phx_close","payload":{},"ref":"3"}',
            )

    run(main())


def test_clients_of_v1_and_v2_exchange_broadcasts() -> None:
    async def main() -> None:
        async with (
            served_app() as made,
            ws_client(made, "vsn=1.0.0") as old,
            ws_client(made) as new,
        ):
            await old.send('{"topic":"room:1","event":"phx_join","payload":{"track":"a"},"ref":1}')
            await old.read()
            state = json.loads(await old.read())
            assert list(state) == ["topic", "event", "payload", "ref"]
            assert (state["event"], list(state["payload"])) == ("presence_state", ["a"])
            assert list(await new.present("room:1", "b")) == ["a", "b"]
            diff = json.loads(await old.read())
            assert (diff["event"], diff["ref"]) == ("presence_diff", None)
            assert list(diff["payload"]["joins"]) == ["b"]
            await new.send('["3","9","room:1","shout",{}]')
            await old.receives('{"topic":"room:1","event":"shout","payload":{},"ref":null}')

    run(main())


def test_binary_broadcast_skips_a_v1_client_which_stays_connected() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made, "vsn=1.0.0") as ann:
            await ann.send('{"topic":"room:1","event":"phx_join","payload":{},"ref":"3"}')
            await ann.read()
            await made.socket.broadcast("room:1", "news", b"\x01")
            await made.socket.broadcast("room:1", "news", {"n": 2})
            await ann.receives('{"topic":"room:1","event":"news","payload":{"n":2},"ref":null}')

    run(main())


def test_v1_client_that_sends_bytes_is_answered_in_text() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made, "vsn=1.0.0") as ann:
            await ann.send(b'{"topic":"room:1","event":"phx_join","payload":{},"ref":"3"}')
            reply = json.loads(await ann.read())
            assert (reply["event"], reply["ref"]) == ("phx_reply", "3")
            echo = '{"topic":"room:1","event":"echo","payload":{"n":"é"},"ref":"4"}'
            await ann.send(echo.encode())
            reply = json.loads(await ann.read())
            assert reply["payload"] == {"status": "ok", "response": {"n": "é"}}
            await ann.send(b'{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"5"}')
            assert json.loads(await ann.read())["ref"] == "5"

    run(main())


def test_elements_after_the_fifth_are_ignored() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann:
            await ann.join("room:1")
            await ann.send('["3","9","room:1","echo",{"n":1},"more",{"and":"more"}]')
            reply = await ann.payload('["3","9","room:1","phx_reply",')
            assert reply == {"status": "ok", "response": {"n": 1}}

    run(main())


def test_unicode_payloads_pass_unchanged() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann:
            await ann.join("room:1")
            payload = {"é": '😀 \u2028 \x00 " \\', "deep": [[{"a": [1.5, -0.0, 10**30]}]], "": ""}
            await ann.send(json.dumps(["3", "9", "room:1", "echo", payload], ensure_ascii=False))
            reply = await ann.payload('["3","9","room:1","phx_reply",')
            assert reply == {"status": "ok", "response": payload}

    run(main())
