"""Long polling, request by request, against a real server."""

import asyncio
import base64
import json

import pytest

from tests.support.waiting import until

from .logged import Log
from .polling import browser, polling
from .raw import raw
from .running import run
from .site import site, two_sites

BEAT = '[null,"7","phoenix","heartbeat",{}]'
BEATEN = '[null,"7","phoenix","phx_reply",{"status":"ok","response":{}}]'


@pytest.fixture
def short_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GET that waits in vain is answered soon."""
    monkeypatch.setattr("adsum.channels.carriers.session.WINDOW", 0.05)


def test_the_first_get_makes_a_session_and_says_410() -> None:
    async def main() -> None:
        async with site() as made, browser(made, "vsn=2.0.0&user=ann") as ann:
            said = await ann.get()
            assert said == {"status": 410, "token": ann.token, "messages": []}
            (client,) = made.clients
            assert (client.transport, client.params) == ("longpoll", {"user": "ann"})

    run(main())


def test_a_get_is_answered_200_with_the_frames_that_wait() -> None:
    async def main() -> None:
        async with site() as made, polling(made) as ann:
            before = ann.token
            assert await ann.post(BEAT) == {"status": 200}
            said = await ann.get()
            assert said == {"status": 200, "token": ann.token, "messages": [BEATEN]}
            assert ann.token != before

    run(main())


def test_a_get_waits_for_the_first_frame() -> None:
    async def main() -> None:
        async with site() as made, polling(made) as ann, polling(made) as bob:
            await ann.join("room:1")
            await bob.join("room:1")
            waiting = asyncio.create_task(ann.get())
            assert await bob.post('["3","9","room:1","whisper",{"n":1}]') == {"status": 200}
            assert (await waiting)["messages"] == ['[null,null,"room:1","shout",{"n":1}]']

    run(main())


@pytest.mark.usefixtures("short_window")
def test_a_get_that_waits_in_vain_is_answered_204_and_the_session_lives_on() -> None:
    async def main() -> None:
        async with site() as made, polling(made) as ann:
            before = ann.token
            assert await ann.get() == {"status": 204, "token": before, "messages": []}
            await ann.post(BEAT)
            assert (await ann.get())["messages"] == [BEATEN]

    run(main())


def test_who_may_not_connect_gets_403() -> None:
    async def main() -> None:
        async with site() as made:
            for query in "vsn=2.0.0&refused=1", "vsn=3.0.0":
                async with browser(made, query) as ann:
                    answer = await ann.http.get(ann.url())
                    assert (answer.status_code, answer.json()["status"]) == (403, 403)
            async with browser(made) as eve:
                assert (await eve.get(origin="https://evil.example"))["status"] == 403
            assert made.socket.stats()["connections"] == 0

    run(main())


def test_requests_with_large_headers_get_403_and_one_line(log: Log) -> None:
    async def main() -> None:
        async with site() as made, polling(made) as ann:
            large = [("a", "b")] * 10_000
            for method in "GET", "POST":
                answer = await ann.http.request(method, ann.url(), headers=large)
                assert (answer.status_code, answer.json()) == (403, {"status": 403})
            [line] = log.lines
            assert line.endswith("that polls was refused: its headers are too large")
            await ann.join("room:1")

    run(main())


def test_a_batch_is_taken_in_order() -> None:
    async def main() -> None:
        async with site() as made, polling(made) as ann:
            lines = [f'["3","{n}","room:1","echo",{{"n":{n}}}]' for n in range(4, 60)]
            assert await ann.post('["3","3","room:1","phx_join",{}]', *lines) == {"status": 200}
            frames = [json.loads(frame) for frame in await ann.frames(57)]
            assert [frame[1] for frame in frames] == [str(n) for n in range(3, 60)]

    run(main())


@pytest.mark.parametrize("text", ["\u2028", "\u2029", "\x85", "\x7f", "\xa0", "é😀"])
def test_a_batch_is_cut_at_line_feeds_alone(text: str) -> None:
    async def main() -> None:
        async with site() as made, polling(made) as ann:
            await ann.join("room:1")
            frame = ["3", "9", "room:1", "echo", {"text": text}]
            lines = [json.dumps(frame, ensure_ascii=False, separators=(",", ":")), BEAT, ""]
            assert await ann.post(*lines) == {"status": 200}
            frames = [json.loads(frame)[4] for frame in await ann.frames(2)]
            assert {"status": "ok", "response": {"text": text}} in frames

    run(main())


def test_a_body_that_is_no_batch_is_one_frame() -> None:
    async def main() -> None:
        async with site() as made, polling(made) as ann:
            assert await ann.post(BEAT, kind="text/plain") == {"status": 200}
            await ann.hears(BEATEN)
            spread = json.dumps(json.loads(BEAT), indent=1)
            assert await ann.post(spread, kind="application/json") == {"status": 200}
            await ann.hears(BEATEN)

    run(main())


def test_bytes_are_sent_as_base64() -> None:
    async def main() -> None:
        async with site() as made, polling(made) as ann, raw(made) as bob:
            await ann.join("room:1")
            await bob.join("room:1")
            frame = b"\x00\x01\x01\x06\x05" + b"39room:1shout\x01\xff"
            assert await ann.post(base64.b64encode(frame), BEAT) == {"status": 200}
            await bob.hears(b"\x02\x06\x05" + b"room:1shout\x01\xff")
            await ann.hears(BEATEN)  # and there is no way to send bytes to a client that polls

    run(main())


def test_a_client_that_polls_is_replied_an_error_instead_of_bytes() -> None:
    async def main() -> None:
        async with site() as made, polling(made) as ann:
            await ann.join("room:1")
            frame = b"\x00\x01\x01\x06\x03" + b"39room:1bin\x01"
            await ann.post(base64.b64encode(frame))
            reason = '{"reason":"this connection carries no bytes"}'
            response = f'{{"status":"error","response":{reason}}}'
            await ann.hears(f'["3","9","room:1","phx_reply",{response}]')
            await ann.post('["3","10","room:1","echo",{}]')
            await ann.hears('["3","10","room:1","phx_reply",{"status":"ok","response":{}}]')

    run(main())


def test_asked_with_the_number_before_the_same_answer_is_given_again() -> None:
    async def main() -> None:
        async with site() as made, polling(made) as ann:
            before = ann.token
            await ann.post(BEAT)
            first = await ann.get(before)
            await ann.post('[null,"8","phoenix","heartbeat",{}]')
            assert await ann.get(before) == first
            assert await ann.get(before) == first
            assert (await ann.get(first["token"]))["messages"] == [BEATEN.replace("7", "8")]

    run(main())


def test_asked_with_an_older_number_still_the_session_is_gone() -> None:
    async def main() -> None:
        async with site() as made, polling(made) as ann:
            first = ann.token
            for _ in range(2):
                await ann.post(BEAT)
                await ann.get()
            assert await ann.get(first) == {"status": 410, "token": None, "messages": []}

    run(main())


def test_asked_with_the_number_before_after_the_answer_arrived_the_session_is_gone() -> None:
    async def main() -> None:
        async with site() as made, polling(made) as ann:
            before = ann.token
            await ann.post(BEAT)
            present = (await ann.get())["token"]
            waiting = asyncio.create_task(ann.get(present))
            await until(lambda: _waits(made.socket))
            assert await ann.get(before) == {"status": 410, "token": None, "messages": []}
            assert not waiting.done()  # nor is the request disturbed that waits
            await ann.post(BEAT)
            assert (await waiting)["messages"] == [BEATEN]

    run(main())


def test_of_two_gets_that_wait_the_older_is_answered_with_nothing() -> None:
    async def main() -> None:
        async with site() as made, polling(made) as ann:
            token = ann.token
            older = asyncio.create_task(ann.get(token))
            await until(lambda: _waits(made.socket))
            newer = asyncio.create_task(ann.get(token))
            assert await older == {"status": 204, "token": token, "messages": []}
            await ann.post(BEAT)
            assert (await newer)["messages"] == [BEATEN]

    run(main())


def test_what_comes_while_a_newer_get_takes_over_is_for_the_newer() -> None:
    async def main() -> None:
        async with site() as made, polling(made):
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
def test_an_unknown_or_forged_token_is_answered_410_and_opens_nothing(token: str) -> None:
    async def main() -> None:
        async with site() as made, polling(made) as ann:
            for forged in token, str(ann.token).rpartition(".")[0] + ".99", f"{ann.token}9":
                kept = ann.token
                assert (await ann.get(forged))["status"] == 410
                ann.token = kept
            assert await ann.post(BEAT, token=token) == {"status": 410}
            await ann.post(BEAT)
            await ann.hears(BEATEN)

    run(main())


def test_garbage_ends_the_session_with_one_line(log: Log) -> None:
    async def main() -> None:
        async with site() as made, polling(made) as ann:
            await ann.post('["3","3","room:1","phx_join",{"track":"ann"}]')
            assert await ann.post(BEAT, '"marker"', BEAT) == {"status": 410}
            said = await ann.get()
            while said["status"] == 200:  # what came before the garbage
                said = await ann.get()
            assert said["status"] == 410
            assert made.keys("room:1") == []
            assert len(log.lines) == 1
            assert "marker" not in log.everything

    run(main())


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_a_site_that_is_accepted_may_read_the_answers_and_no_other(method: str, log: Log) -> None:
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-phoenix-authtoken",
    }

    async def main() -> None:
        async with site(origins=["https://example.com"]) as made, browser(made) as ann:
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


def test_other_methods_are_not_answered() -> None:
    async def main() -> None:
        async with site() as made, polling(made) as ann:
            for method in "PUT", "DELETE":
                answer = await ann.http.request(method, ann.url())
                assert answer.status_code == 400

    run(main())


def test_a_token_comes_in_a_header() -> None:
    async def main() -> None:
        async with site() as made, browser(made) as ann:
            await ann.get(**{"x-phoenix-authtoken": "secret"})
            assert made.clients[0].token == "secret"

    run(main())


def test_version_1_is_spoken_as_well() -> None:
    async def main() -> None:
        async with site() as made, polling(made, "vsn=1.0.0") as ann:
            await ann.post('{"topic":"room:1","event":"phx_join","payload":{},"ref":"3"}')
            await ann.hears(
                '{"topic":"room:1","event":"phx_reply",'
                '"payload":{"status":"ok","response":{}},"ref":"3"}'
            )

    run(main())


def test_presences_reach_a_client_that_polls() -> None:
    async def main() -> None:
        async with site() as made, polling(made) as ann, raw(made) as bob:
            await ann.post('["3","3","room:1","phx_join",{"track":"ann"}]')
            _, state = await ann.frames(2)
            assert state.startswith('["3",null,"room:1","presence_state",{"ann":{"metas":')
            assert list(await bob.present("room:1", "bob")) == ["ann", "bob"]
            (diff,) = await ann.frames(1)
            assert diff.startswith('["3",null,"room:1","presence_diff",{"joins":{"bob":')

    run(main())


def test_a_session_that_nobody_asks_for_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adsum.channels.carriers.session.LIFETIME", 0.1)

    async def main() -> None:
        async with site() as made, polling(made) as ann:
            await ann.post('["3","3","room:1","phx_join",{"track":"ann"}]')
            await until(lambda: made.ends == [("room:1", "closed")])
            assert made.keys("room:1") == []
            assert (await ann.get())["status"] == 410
            assert made.socket.stats()["connections"] == 0

    run(main())


@pytest.mark.slow
@pytest.mark.usefixtures("short_window")
def test_a_client_that_polls_is_not_silent() -> None:
    async def main() -> None:
        async with site(timeout=0.3) as made, polling(made) as ann, raw(made) as silent:
            await silent.present("room:1", "silent")
            while made.keys("room:1"):
                assert (await ann.get())["status"] == 204
            assert await silent.closed() == 1001
            await ann.join("room:1")

    run(main())


def test_a_node_that_stops_ends_the_sessions_and_those_that_wait() -> None:
    async def main() -> None:
        async with site() as made, polling(made) as ann:
            waiting = asyncio.create_task(ann.get())
            await until(lambda: _waits(made.socket))
            await made.node.stop()
            assert (await waiting)["status"] == 410
            assert await ann.post(BEAT) == {"status": 410}

    run(main())


def test_requests_that_reach_another_node_are_passed_on(cluster_name: str) -> None:
    async def main() -> None:
        async with two_sites(cluster_name) as (one, two), polling(one) as ann:
            ann.site = two
            await ann.join("room:1")
            for site in one, two:
                waiting = asyncio.create_task(ann.get())
                ann.site = one if site is two else two
                await ann.post('["3","9","room:1","tell me",{"n":1}]')
                assert (await waiting)["messages"] == ['["3",null,"room:1","told",{"n":1}]']
            assert one.socket.stats()["connections"] == 1
            assert two.socket.stats()["connections"] == 0

    run(main())


def test_large_bodies_and_answers_pass_between_nodes(cluster_name: str) -> None:
    async def main() -> None:
        async with two_sites(cluster_name) as (one, two), polling(one) as ann:
            ann.site = two
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


def test_the_same_answer_is_given_again_through_another_node(cluster_name: str) -> None:
    async def main() -> None:
        async with two_sites(cluster_name) as (one, two), polling(one) as ann:
            before = ann.token
            await ann.post(BEAT)
            first = await ann.get(before)
            ann.site = two
            assert await ann.get(before) == first

    run(main())


def test_a_session_of_a_node_that_is_gone_is_gone(cluster_name: str) -> None:
    async def main() -> None:
        async with two_sites(cluster_name) as (one, two), polling(one) as ann:
            ann.site = two
            waiting = asyncio.create_task(ann.get())
            await until(lambda: _waits(one.socket))
            await one.node.stop()
            assert (await ann.post(BEAT))["status"] == 410
            await two.node.stop()
            assert (await waiting)["status"] == 410

    run(main())
