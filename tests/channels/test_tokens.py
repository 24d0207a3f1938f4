"""Tokens of clients that poll: every worker checks them on arrival, and members alone know how."""

import asyncio
import base64
import json
import logging
from typing import Any

import httpx2
import pytest

import adsum
from adsum.channels.carriers import tokens
from adsum.channels.carriers.sessions import Sessions
from adsum.channels.carriers.tokens import Route, Token
from tests.support.forked_child import in_child
from tests.support.nodes import running
from tests.support.waiting import DEADLINE, until

from .captured_log import Log
from .heartbeat import BEAT, BEATEN
from .http_poller import http_poller, unasked_http_poller
from .leak_check import leak_checked
from .served_app import ServedApp, served_app, serving, two_served_apps
from .ws_client import ws_client

PARTS = ["route", "session", "number", "mac"]


def tampered(token: str | None, part: str) -> str:
    """A token with another value in one part."""
    assert token is not None
    parts = token.split(".")
    index = PARTS.index(part)
    old = parts[index]
    parts[index] = (
        str(int(old) + 1) if part == "number" else ("B" if old[0] == "A" else "A") + old[1:]
    )
    return ".".join(parts)


async def post_unread(served_app: ServedApp, token: str) -> dict[str, Any]:
    """The answer to a POST whose body must not be read."""
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body is read")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/socket/longpoll",
        "query_string": f"vsn=2.0.0&token={token}".encode(),
        "headers": [(b"host", b"testserver"), (b"content-length", b"1000000")],
        "client": ("192.0.2.1", 0),
    }
    await served_app.socket(scope, receive, send)
    answer: dict[str, Any] = json.loads(sent[1]["body"])
    return answer


@leak_checked
async def test_session_token_does_not_reveal_the_node_name() -> None:
    async with served_app() as made, http_poller(made) as ann:
        assert ann.token is not None
        parts = [part for part in ann.token.split(".") if not part.isdecimal()]
        shown = [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in parts]
        name = made.node.name.encode()
        assert not any(name in text for text in [ann.token.encode(), *shown])


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("where", ["at its worker", "at another one"])
@leak_checked
async def test_tampered_session_token_is_refused_without_reading_the_body(
    part: str, where: str, cluster_name: str, log: Log
) -> None:
    async with two_served_apps(cluster_name) as (one, two), http_poller(one) as ann:
        ann.app = two
        await ann.join("room:1")  # by now both know each other's routes
        at = one if where == "at its worker" else two
        before = one.node.stats()["received_bytes_total"]
        for _ in range(20):
            assert await post_unread(at, tampered(ann.token, part)) == {"status": 410}
        assert one.node.stats()["received_bytes_total"] - before < 5_000  # heartbeats
        assert len(log.lines) == 1
        assert "192.0.2.1" in log.lines[0]
        assert await ann.post(BEAT) == {"status": 200}
        await ann.receives(BEATEN)


@leak_checked
async def test_forged_session_tokens_relay_nothing_and_broadcasts_keep_arriving(
    cluster_name: str,
) -> None:
    async def forge(client: httpx2.AsyncClient, url: str) -> None:
        for _ in range(4):
            try:
                answer = await client.post(url, content=b"x" * 1024 * 1024)
            except httpx2.TransportError:
                continue  # it was answered before all was sent
            assert answer.json() == {"status": 410}

    async with (
        two_served_apps(cluster_name) as (one, two),
        http_poller(one) as ann,
        ws_client(one) as bob,
        httpx2.AsyncClient(trust_env=False, timeout=DEADLINE) as http,
    ):
        ann.app = two
        await ann.join("room:1")
        await bob.join("room:1")
        forged = [tampered(ann.token, PARTS[n % 4]) for n in range(32)]
        before = one.node.stats()["received_bytes_total"]
        attack = [asyncio.create_task(forge(http, ann.url(token))) for token in forged]
        for n in range(100):
            await two.socket.broadcast("room:1", "shout", {"n": n})
        for n in range(100):
            await bob.receives(f'[null,null,"room:1","shout",{{"n":{n}}}]')
        await asyncio.gather(*attack)
        relayed = one.node.stats()["received_bytes_total"] - before
        assert relayed < 100 * 300 + 20_000  # the broadcasts, and heartbeats


@leak_checked
async def test_session_token_that_arrives_before_its_route_waits_for_it(
    cluster_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, asked = asyncio.Event(), asyncio.Event()
    answer = Sessions.answer

    async def answer_late(self: Sessions, question: Any) -> Any:
        if question["do"] == "route":
            asked.set()
            await go.wait()
        return await answer(self, question)

    monkeypatch.setattr(Sessions, "answer", answer_late)

    async with two_served_apps(cluster_name) as (one, two), http_poller(one) as ann:
        ann.app = two
        early = asyncio.create_task(ann.post(BEAT))
        await asked.wait()
        assert not early.done()
        go.set()
        assert await early == {"status": 200}
        await ann.receives(BEATEN)


@pytest.mark.slow
@leak_checked
async def test_members_without_channels_delay_unknown_tokens_alone(
    cluster_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "PATIENCE", 0.2)

    async with running(3, cluster=cluster_name) as nodes:
        one, two = ServedApp(nodes[0]), ServedApp(nodes[1])
        async with serving(one), serving(two), http_poller(one) as ann:
            ann.app = two
            await ann.join("room:1")
            stranger = Route.draw("shop").token("A" * 32, 0)
            for _ in range(3):
                assert await post_unread(two, stranger) == {"status": 410}
            assert await ann.post(BEAT) == {"status": 200}
            await ann.receives(BEATEN)


@leak_checked
async def test_session_token_of_an_old_incarnation_is_void_everywhere(cluster_name: str) -> None:
    async with running(1, cluster=cluster_name) as nodes:
        two = ServedApp(nodes[0])
        one = ServedApp(adsum.Node(cluster=cluster_name, name="one"))
        async with serving(one), serving(two), unasked_http_poller(two) as ann:
            olds: list[str] = []
            for _ in range(2):
                async with one.node:
                    ann.app, ann.token = one, None
                    await ann.begin()
                    for old in olds:
                        assert await post_unread(one, old) == {"status": 410}
                        assert await post_unread(two, old) == {"status": 410}
                    ann.app = two
                    await ann.join("room:1")
                    olds.append(str(ann.token))
                assert await post_unread(two, olds[-1]) == {"status": 410}


@leak_checked
async def test_session_token_of_another_cluster_is_refused_and_logged_with_the_remedy(
    log: Log,
) -> None:
    one, two = [ServedApp(adsum.Node(cluster=name, siblings=False)) for name in ("one", "two")]
    async with one.node, two.node, serving(one), serving(two), http_poller(one) as ann:
        ann.app = two
        for _ in range(30):
            assert await ann.post(BEAT) == {"status": 410}
        (line,) = log.lines
        assert "ADSUM_CLUSTER" in line
        assert two.node.cluster in line
        ann.app = one
        assert await ann.post(BEAT) == {"status": 200}


@leak_checked
async def test_session_token_of_a_stopped_worker_logs_nothing(
    cluster_name: str, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    """Else each deployment would warn of clients that poll."""

    async with two_served_apps(cluster_name) as (one, two), http_poller(one) as ann:
        ann.app = two
        await one.node.stop()
        await until(lambda: "up" not in {member.status for member in two.node.members()})
        with caplog.at_level(logging.INFO, "adsum"):
            assert await ann.post(BEAT) == {"status": 410}
        assert "has stopped" in caplog.text
        assert "another cluster" not in caplog.text
        assert log.lines == []


@leak_checked
async def test_forked_child_does_not_use_the_route_of_its_parent() -> None:
    made = ServedApp()

    def route() -> Route:
        return Sessions.of(made.node)._routes.own

    async def of_child() -> list[str]:
        async with made.node:
            return [route().id, route().key.hex()]

    async with made.node:
        own = route()
        found = in_child(lambda: asyncio.run(of_child()))
        assert found[0] != own.id
        assert found[1] != own.key.hex()
        assert route() is own


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"route": 1, "key": "00" * 32},
        {"route": "A" * 19, "key": "zz" * 32},
        {"route": "A" * 19, "key": "00"},
        {"route": "A" * 20, "key": "00" * 32},
        {"route": "A" * 19, "key": ["00"] * 64},
    ],
)
def test_malformed_route_of_a_member_is_dropped(answer: Any) -> None:
    with pytest.raises(ValueError, match=r"not a|hex"):
        Route.load(answer)


def test_routes_pass_between_members_unchanged() -> None:
    route = Route.draw("shop")
    assert Route.load(json.loads(json.dumps(route.dump()))) == route
    token = Token.read(route.token("A" * 32, 7))
    assert token is not None
    assert route.proves(token)
    assert not Route(route.id, bytes(32)).proves(token)


@leak_checked
async def test_unknown_sessions_cost_few_log_lines(cluster_name: str, log: Log) -> None:
    async with two_served_apps(cluster_name) as (one, two), http_poller(one) as ann:
        token = Token.read(str(ann.token))
        assert token is not None
        gone = Sessions.of(one.node)._routes.own.token("A" * 32, 0)
        for _ in range(20):
            assert await post_unread(one, gone) == {"status": 410}
        assert log.everything.count("a session that has ended") == 1
        ann.app = two
        for _ in range(20):
            assert await ann.post(BEAT, token=gone) == {"status": 410}
        assert log.everything.count("a session that has ended") == 2
        await until(lambda: not log.lines)
