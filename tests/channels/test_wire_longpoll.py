"""Long polling, request by request, against a real server."""

import asyncio
import base64
import json

import pytest

from adsum.channels.carriers.tokens import Token
from tests.support.waiting import until

from .captured_log import Log
from .heartbeat import BEAT, BEATEN
from .http_poller import http_poller, unasked_http_poller
from .leak_check import run
from .served_app import served_app, two_served_apps
from .ws_client import ws_client


@pytest.fixture
def short_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GET that waits in vain is answered soon."""
    monkeypatch.setattr("adsum.channels.carriers.session.WINDOW", 0.05)


def test_first_poll_creates_a_session_with_410() -> None:
    async def main() -> None:
        async with served_app() as made, unasked_http_poller(made, "vsn=2.0.0&user=ann") as ann:
            said = await ann.get()
            assert said == {"status": 410, "token": ann.token, "messages": []}
            (client,) = made.clients
            assert (client.transport, client.params) == ("longpoll", {"user": "ann"})

    run(main())


def test_poll_is_answered_200_with_queued_frames() -> None:
    async def main() -> None:
        async with served_app() as made, http_poller(made) as ann:
            before = ann.token
            assert await ann.post(BEAT) == {"status": 200}
            said = await ann.get()
            assert said == {"status": 200, "token": ann.token, "messages": [BEATEN]}
            assert ann.token != before

    run(main())


def test_poll_waits_for_the_first_frame() -> None:
    async def main() -> None:
        async with served_app() as made, http_poller(made) as ann, http_poller(made) as bob:
            await ann.join("room:1")
            await bob.join("room:1")
            waiting = asyncio.create_task(ann.get())
            assert await bob.post('["3","9","room:1","whisper",{"n":1}]') == {"status": 200}
            assert (await waiting)["messages"] == ['[null,null,"room:1","shout",{"n":1}]']

    run(main())


@pytest.mark.usefixtures("short_window")
def test_poll_without_frames_is_answered_204_and_keeps_the_session() -> None:
    async def main() -> None:
        async with served_app() as made, http_poller(made) as ann:
            before = ann.token
            assert await ann.get() == {"status": 204, "token": before, "messages": []}
            await ann.post(BEAT)
            assert (await ann.get())["messages"] == [BEATEN]

    run(main())


def test_longpoll_connect_refusal_is_answered_403() -> None:
    async def main() -> None:
        async with served_app() as made:
            for query in "vsn=2.0.0&refused=1", "vsn=3.0.0":
                async with unasked_http_poller(made, query) as ann:
                    answer = await ann.http.get(ann.url())
                    assert (answer.status_code, answer.json()["status"]) == (403, 403)
            async with unasked_http_poller(made) as eve:
                assert (await eve.get(origin="https://evil.example"))["status"] == 403
            assert made.socket.stats()["connections"] == 0

    run(main())


def test_longpoll_request_with_large_headers_is_answered_403_with_one_line(log: Log) -> None:
    async def main() -> None:
        async with served_app() as made, http_poller(made) as ann:
            large = [("a", "b")] * 10_000
            for method in "GET", "POST":
                answer = await ann.http.request(method, ann.url(), headers=large)
                assert (answer.status_code, answer.json()) == (403, {"status": 403})
            [line] = log.lines
            assert line.endswith("was refused: its headers are too large")
            await ann.join("room:1")

    run(main())


def test_longpoll_batch_is_applied_in_order() -> None:
    async def main() -> None:
        async with served_app() as made, http_poller(made) as ann:
            lines = [f'["3","{n}","room:1","echo",{{"n":{n}}}]' for n in range(4, 60)]
            assert await ann.post('["3","3","room:1","phx_join",{}]', *lines) == {"status": 200}
            frames = [json.loads(frame) for frame in await ann.frames(57)]
            assert [frame[1] for frame in frames] == [str(n) for n in range(3, 60)]

    run(main())


@pytest.mark.parametrize("text", ["\u2028", "\u2029", "\x85", "\x7f", "\xa0", "é😀"])
def test_longpoll_batch_is_split_at_line_feeds_only(text: str) -> None:
    async def main() -> None:
        async with served_app() as made, http_poller(made) as ann:
            await ann.join("room:1")
            frame = ["3", "9", "room:1", "echo", {"text": text}]
            lines = [json.dumps(frame, ensure_ascii=False, separators=(",", ":")), BEAT, ""]
            assert await ann.post(*lines) == {"status": 200}
            frames = [json.loads(frame)[4] for frame in await ann.frames(2)]
            assert {"status": "ok", "response": {"text": text}} in frames

    run(main())


def test_longpoll_body_without_ndjson_type_is_one_frame() -> None:
    async def main() -> None:
        async with served_app() as made, http_poller(made) as ann:
            assert await ann.post(BEAT, kind="text/plain") == {"status": 200}
            await ann.receives(BEATEN)
            spread = json.dumps(json.loads(BEAT), indent=1)
            assert await ann.post(spread, kind="application/json") == {"status": 200}
            await ann.receives(BEATEN)

    run(main())


def test_longpoll_sends_bytes_as_base64() -> None:
    async def main() -> None:
        async with served_app() as made, http_poller(made) as ann, ws_client(made) as bob:
            await ann.join("room:1")
            await bob.join("room:1")
            frame = b"\x00\x01\x01\x06\x05" + b"39room:1shout\x01\xff"
            assert await ann.post(base64.b64encode(frame), BEAT) == {"status": 200}
            await bob.receives(b"\x02\x06\x05" + b"room:1shout\x01\xff")
            await ann.receives(BEATEN)  # and there is no way to send bytes to a client that polls

    run(main())


def test_longpoll_binary_reply_is_replaced_by_an_error() -> None:
    async def main() -> None:
        async with served_app() as made, http_poller(made) as ann:
            await ann.join("room:1")
            frame = b"\x00\x01\x01\x06\x03" + b"39room:1bin\x01"
            await ann.post(base64.b64encode(frame))
            reason = '{"reason":"this connection carries no binary payloads"}'
            response = f'{{"status":"error","response":{reason}}}'
            await ann.receives(f'["3","9","room:1","phx_reply",{response}]')
            await ann.post('["3","10","room:1","echo",{}]')
            await ann.receives('["3","10","room:1","phx_reply",{"status":"ok","response":{}}]')

    run(main())


def test_duplicate_poll_with_the_previous_number_repeats_the_answer() -> None:
    async def main() -> None:
        async with served_app() as made, http_poller(made) as ann:
            before = ann.token
            await ann.post(BEAT)
            first = await ann.get(before)
            await ann.post('[null,"8","phoenix","heartbeat",{}]')
            assert await ann.get(before) == first
            assert await ann.get(before) == first
            assert (await ann.get(first["token"]))["messages"] == [BEATEN.replace("7", "8")]

    run(main())


def test_poll_with_an_older_number_ends_the_session() -> None:
    async def main() -> None:
        async with served_app() as made, http_poller(made) as ann:
            first = ann.token
            for _ in range(2):
                await ann.post(BEAT)
                await ann.get()
            assert await ann.get(first) == {"status": 500, "token": None, "messages": []}

    run(main())


def test_poll_with_a_stale_number_after_acknowledgement_ends_the_session() -> None:
    async def main() -> None:
        async with served_app() as made, http_poller(made) as ann:
            before = ann.token
            await ann.post(BEAT)
            present = (await ann.get())["token"]
            waiting = asyncio.create_task(ann.get(present))
            await until(lambda: _waits(made.socket))
            assert await ann.get(before) == {"status": 500, "token": None, "messages": []}
            assert not waiting.done()  # nor is the request disturbed that waits
            await ann.post(BEAT)
            assert (await waiting)["messages"] == [BEATEN]

    run(main())


def test_concurrent_poll_answers_the_older_one_empty() -> None:
    async def main() -> None:
        async with served_app() as made, http_poller(made) as ann:
            token = ann.token
            older = asyncio.create_task(ann.get(token))
            await until(lambda: _waits(made.socket))
            newer = asyncio.create_task(ann.get(token))
            assert await older == {"status": 204, "token": token, "messages": []}
            await ann.post(BEAT)
            assert (await newer)["messages"] == [BEATEN]

    run(main())


def test_frames_during_poll_takeover_go_to_the_newer_poll() -> None:
    async def main() -> None:
        async with served_app() as made, http_poller(made):
            (session,) = made.socket._longpoll._sessions._sessions.values()
            older = asyncio.create_task(session.poll(0))
            await until(lambda: _waits(made.socket))
            newer = asyncio.create_task(session.poll(0))
            await asyncio.sleep(0)  # the older one has been woken, and has not gone on yet
            assert not older.done()
            session.connection.send("a frame")
            assert await older == (204, 0, [])
            assert await newer == (200, 1, ["a frame"])

    run(main())


def _waits(socket: object) -> bool:
    """Whether a GET of a session waits."""
    (session,) = socket._longpoll._sessions._sessions.values()  # type: ignore[attr-defined]  # see in
    return session._poll is not None and not session._poll.done()


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "..",
        "a.b.c",
        "a.b.0",
        "bm9kZQ==.b.0",
        "%00.%ff.1",
        "9" * 5000,
        "...",
        "é.é.0",
    ],
)
def test_unknown_or_forged_session_token_is_answered_as_gone(token: str) -> None:
    async def main() -> None:
        async with served_app() as made, http_poller(made) as ann:
            kept = str(ann.token)
            other = ("B" if kept[0] == "A" else "A") + kept[1:]
            assert Token.read(other) is not None
            for forged in token, kept.rpartition(".")[0] + ".99", f"{kept}9", other:
                # A token in another format may be a parameter of the application: it begins one.
                begins = Token.read(forged) is None
                assert (await ann.get(forged))["status"] == (410 if begins else 500)
                ann.token = kept
            assert await ann.post(BEAT, token=token) == {"status": 410}
            await ann.post(BEAT)
            await ann.receives(BEATEN)

    run(main())


def test_longpoll_garbage_ends_the_session_with_one_line(log: Log) -> None:
    async def main() -> None:
        async with served_app() as made, http_poller(made) as ann:
            await ann.post('["3","3","room:1","phx_join",{"track":"ann"}]')
            assert await ann.post(BEAT, '"marker"', BEAT) == {"status": 410}
            said = await ann.get()
            while said["status"] == 200:  # what came before the garbage
                said = await ann.get()
            assert said["status"] == 500
            assert made.keys("room:1") == []
            assert len(log.lines) == 1
            assert "marker" not in log.everything

    run(main())


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_longpoll_cors_headers_are_sent_to_accepted_origins_only(method: str, log: Log) -> None:
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-phoenix-authtoken",
    }

    async def main() -> None:
        async with (
            served_app(origins=["https://example.com"]) as made,
            unasked_http_poller(made) as ann,
        ):
            origin = "https://example.com"
            headers = {"origin": origin, **asked}
            answer = await ann.http.request(method, ann.url(), headers=headers)
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == origin
            if method == "OPTIONS":
                named = answer.headers["access-control-allow-headers"]
                assert named == "content-type,x-phoenix-authtoken"
                assert "post" in answer.headers["access-control-allow-methods"].lower()
            assert log.lines == []
            headers["origin"] = "https://evil.example"
            answer = await ann.http.request(method, ann.url(), headers=headers)
            assert (answer.status_code, answer.json()["status"]) == (403, 403)
            assert "access-control-allow-origin" not in answer.headers
            assert len(log.lines) == 1

    run(main())


def test_longpoll_rejects_other_http_methods() -> None:
    async def main() -> None:
        async with served_app() as made, http_poller(made) as ann:
            for method in "PUT", "DELETE":
                answer = await ann.http.request(method, ann.url())
                assert answer.status_code == 400

    run(main())


def test_longpoll_auth_token_is_read_from_a_header() -> None:
    async def main() -> None:
        async with served_app() as made, unasked_http_poller(made) as ann:
            await ann.get(**{"x-phoenix-authtoken": "secret"})
            assert made.clients[0].token == "secret"

    run(main())


def test_longpoll_serves_v1() -> None:
    async def main() -> None:
        async with served_app() as made, http_poller(made, "vsn=1.0.0") as ann:
            await ann.post('{"topic":"room:1","event":"phx_join","payload":{},"ref":"3"}')
            await ann.receives(
                '{"topic":"room:1","event":"phx_reply",'
                '"payload":{"status":"ok","response":{}},"ref":"3"}'
            )

    run(main())


def test_longpoll_client_receives_presences() -> None:
    async def main() -> None:
        async with served_app() as made, http_poller(made) as ann, ws_client(made) as bob:
            await ann.post('["3","3","room:1","phx_join",{"track":"ann"}]')
            _, state = await ann.frames(2)
            assert state.startswith('["3",null,"room:1","presence_state",{"ann":{"metas":')
            assert list(await bob.present("room:1", "bob")) == ["ann", "bob"]
            (diff,) = await ann.frames(1)
            assert diff.startswith('["3",null,"room:1","presence_diff",{"joins":{"bob":')

    run(main())


def test_longpoll_session_without_polls_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adsum.channels.carriers.session.LIFETIME", 0.1)

    async def main() -> None:
        async with served_app() as made, http_poller(made) as ann:
            await ann.post('["3","3","room:1","phx_join",{"track":"ann"}]')
            await until(lambda: made.ends == [("room:1", "closed")])
            assert made.keys("room:1") == []
            assert (await ann.get())["status"] == 500
            assert made.socket.stats()["connections"] == 0

    run(main())


@pytest.mark.slow
@pytest.mark.usefixtures("short_window")
def test_polling_client_is_not_timed_out_by_heartbeat() -> None:
    async def main() -> None:
        async with (
            served_app(timeout=0.3) as made,
            http_poller(made) as ann,
            ws_client(made) as silent,
        ):
            await silent.present("room:1", "silent")
            while made.keys("room:1"):
                assert (await ann.get())["status"] == 204
            assert await silent.closed() == 1001
            await ann.join("room:1")

    run(main())


def test_node_stop_ends_longpoll_sessions_and_waiting_polls() -> None:
    async def main() -> None:
        async with served_app() as made, http_poller(made) as ann:
            waiting = asyncio.create_task(ann.get())
            await until(lambda: _waits(made.socket))
            await made.node.stop()
            assert (await waiting)["status"] == 500
            assert await ann.post(BEAT) == {"status": 410}

    run(main())


def test_longpoll_request_at_another_node_is_relayed(cluster_name: str) -> None:
    async def main() -> None:
        async with two_served_apps(cluster_name) as (one, two), http_poller(one) as ann:
            ann.app = two
            await ann.join("room:1")
            for served_app in one, two:
                waiting = asyncio.create_task(ann.get())
                ann.app = one if served_app is two else two
                await ann.post('["3","9","room:1","tell me",{"n":1}]')
                assert (await waiting)["messages"] == ['["3",null,"room:1","told",{"n":1}]']
            assert one.socket.stats()["connections"] == 1
            assert two.socket.stats()["connections"] == 0

    run(main())


def test_large_longpoll_bodies_and_answers_are_relayed(cluster_name: str) -> None:
    async def main() -> None:
        async with two_served_apps(cluster_name) as (one, two), http_poller(one) as ann:
            ann.app = two
            await ann.join("room:1")
            text = '"\\é😀' * 6_000
            lines = [
                json.dumps(["3", str(n), "room:1", "echo", {"text": text}], ensure_ascii=False)
                for n in range(5)
            ]
            assert await ann.post(*lines) == {"status": 200}
            for frame in await ann.frames(5):
                assert json.loads(frame)[4]["response"] == {"text": text}

    run(main())


def test_duplicate_poll_through_another_node_repeats_the_answer(cluster_name: str) -> None:
    async def main() -> None:
        async with two_served_apps(cluster_name) as (one, two), http_poller(one) as ann:
            before = ann.token
            await ann.post(BEAT)
            first = await ann.get(before)
            ann.app = two
            assert await ann.get(before) == first

    run(main())


def test_longpoll_session_of_a_dead_node_is_gone(cluster_name: str) -> None:
    async def main() -> None:
        async with two_served_apps(cluster_name) as (one, two), http_poller(one) as ann:
            ann.app = two
            waiting = asyncio.create_task(ann.get())
            await until(lambda: _waits(one.socket))
            await one.node.stop()
            assert (await ann.post(BEAT))["status"] == 410
            await two.node.stop()
            assert (await waiting)["status"] == 500

    run(main())
