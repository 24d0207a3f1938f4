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
from tests.node.children import in_child
from tests.support.nodes import running
from tests.support.waiting import DEADLINE, until

from .logged import Log
from .polling import browser, polling
from .raw import raw
from .running import run
from .site import Site, serving, site, two_sites

BEAT = '[null,"7","phoenix","heartbeat",{}]'
BEATEN = '[null,"7","phoenix","phx_reply",{"status":"ok","response":{}}]'
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


async def post_unread(site: Site, token: str) -> dict[str, Any]:
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
    await site.socket(scope, receive, send)
    answer: dict[str, Any] = json.loads(sent[1]["body"])
    return answer


def test_token_does_not_reveal_the_name_of_its_node() -> None:
    async def main() -> None:
        async with site() as made, polling(made) as ann:
            assert ann.token is not None
            parts = [part for part in ann.token.split(".") if not part.isdecimal()]
            shown = [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in parts]
            name = made.node.name.encode()
            assert not any(name in text for text in [ann.token.encode(), *shown])

    run(main())


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("where", ["at its worker", "at another one"])
def test_tampered_token_is_refused_without_reading_the_body(
    part: str, where: str, cluster_name: str, log: Log
) -> None:
    async def main() -> None:
        async with two_sites(cluster_name) as (one, two), polling(one) as ann:
            ann.site = two
            await ann.join("room:1")  # by now both know each other's routes
            at = one if where == "at its worker" else two
            before = one.node.stats()["received_bytes_total"]
            for _ in range(20):
                assert await post_unread(at, tampered(ann.token, part)) == {"status": 410}
            assert one.node.stats()["received_bytes_total"] - before < 5_000  # heartbeats
            assert len(log.lines) == 1
            assert "192.0.2.1" in log.lines[0]
            assert await ann.post(BEAT) == {"status": 200}
            await ann.hears(BEATEN)

    run(main())


def test_forged_tokens_relay_nothing_and_broadcasts_keep_arriving(cluster_name: str) -> None:
    async def forge(client: httpx2.AsyncClient, url: str) -> None:
        for _ in range(4):
            try:
                answer = await client.post(url, content=b"x" * 1024 * 1024)
            except httpx2.TransportError:
                continue  # it was answered before all was sent
            assert answer.json() == {"status": 410}

    async def main() -> None:
        async with (
            two_sites(cluster_name) as (one, two),
            polling(one) as ann,
            raw(one) as bob,
            httpx2.AsyncClient(trust_env=False, timeout=DEADLINE) as http,
        ):
            ann.site = two
            await ann.join("room:1")
            await bob.join("room:1")
            forged = [tampered(ann.token, PARTS[n % 4]) for n in range(32)]
            before = one.node.stats()["received_bytes_total"]
            attack = [asyncio.create_task(forge(http, ann.url(token))) for token in forged]
            for n in range(100):
                await two.socket.broadcast("room:1", "shout", {"n": n})
            for n in range(100):
                await bob.hears(f'[null,null,"room:1","shout",{{"n":{n}}}]')
            await asyncio.gather(*attack)
            relayed = one.node.stats()["received_bytes_total"] - before
            assert relayed < 100 * 300 + 20_000  # the broadcasts, and heartbeats

    run(main())


def test_token_that_arrives_before_its_route_waits_for_it(
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

    async def main() -> None:
        async with two_sites(cluster_name) as (one, two), polling(one) as ann:
            ann.site = two
            early = asyncio.create_task(ann.post(BEAT))
            await asked.wait()
            assert not early.done()
            go.set()
            assert await early == {"status": 200}
            await ann.hears(BEATEN)

    run(main())


@pytest.mark.slow
def test_members_without_channels_delay_unknown_tokens_alone(
    cluster_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "PATIENCE", 0.2)

    async def main() -> None:
        async with running(3, cluster=cluster_name) as nodes:
            one, two = Site(nodes[0]), Site(nodes[1])
            async with serving(one), serving(two), polling(one) as ann:
                ann.site = two
                await ann.join("room:1")
                stranger = Route.draw("shop").token("A" * 32, 0)
                for _ in range(3):
                    assert await post_unread(two, stranger) == {"status": 410}
                assert await ann.post(BEAT) == {"status": 200}
                await ann.hears(BEATEN)

    run(main())


def test_token_of_a_former_life_is_void_everywhere(cluster_name: str) -> None:
    async def main() -> None:
        async with running(1, cluster=cluster_name) as nodes:
            two = Site(nodes[0])
            one = Site(adsum.Node(cluster=cluster_name, name="one"))
            async with serving(one), serving(two), browser(two) as ann:
                olds: list[str] = []
                for _ in range(2):
                    async with one.node:
                        ann.site, ann.token = one, None
                        await ann.begin()
                        for old in olds:
                            assert await post_unread(one, old) == {"status": 410}
                            assert await post_unread(two, old) == {"status": 410}
                        ann.site = two
                        await ann.join("room:1")
                        olds.append(str(ann.token))
                    assert await post_unread(two, olds[-1]) == {"status": 410}

    run(main())


def test_clusters_do_not_accept_each_others_tokens_and_log_the_remedy(log: Log) -> None:
    async def main() -> None:
        one, two = [Site(adsum.Node(cluster=name, siblings=False)) for name in ("one", "two")]
        async with one.node, two.node, serving(one), serving(two), polling(one) as ann:
            ann.site = two
            for _ in range(30):
                assert await ann.post(BEAT) == {"status": 410}
            (line,) = log.lines
            assert "ADSUM_CLUSTER" in line
            assert two.node.cluster in line
            ann.site = one
            assert await ann.post(BEAT) == {"status": 200}

    run(main())


def test_token_of_a_stopped_worker_is_no_mistake(
    cluster_name: str, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    """Else each deployment would warn of clients that poll."""

    async def main() -> None:
        async with two_sites(cluster_name) as (one, two), polling(one) as ann:
            ann.site = two
            await one.node.stop()
            await until(lambda: "up" not in {member.status for member in two.node.members()})
            with caplog.at_level(logging.INFO, "adsum"):
                assert await ann.post(BEAT) == {"status": 410}
            assert "has stopped" in caplog.text
            assert "another cluster" not in caplog.text
            assert log.lines == []

    run(main())


def test_child_process_does_not_use_the_route_of_its_parent() -> None:
    made = Site()

    def route() -> Route:
        return Sessions.of(made.node)._routes.own

    async def of_child() -> list[str]:
        async with made.node:
            return [route().id, route().key.hex()]

    async def main() -> None:
        async with made.node:
            own = route()
            found = in_child(lambda: asyncio.run(of_child()))
            assert found[0] != own.id
            assert found[1] != own.key.hex()
            assert route() is own

    run(main())


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
def test_answer_of_a_member_that_is_no_route_is_dropped(answer: Any) -> None:
    with pytest.raises(ValueError, match=r"not a|hex"):
        Route.load(answer)


def test_routes_pass_between_members_unchanged() -> None:
    route = Route.draw("shop")
    assert Route.load(json.loads(json.dumps(route.dump()))) == route
    token = Token.read(route.token("A" * 32, 7))
    assert token is not None
    assert route.proves(token)
    assert not Route(route.id, bytes(32)).proves(token)


def test_unknown_sessions_cost_few_log_lines(cluster_name: str, log: Log) -> None:
    async def main() -> None:
        async with two_sites(cluster_name) as (one, two), polling(one) as ann:
            token = Token.read(str(ann.token))
            assert token is not None
            gone = Sessions.of(one.node)._routes.own.token("A" * 32, 0)
            for _ in range(20):
                assert await post_unread(one, gone) == {"status": 410}
            assert log.everything.count("a session that has ended") == 1
            ann.site = two
            for _ in range(20):
                assert await ann.post(BEAT, token=gone) == {"status": 410}
            assert log.everything.count("a session that has ended") == 2
            await until(lambda: not log.lines)

    run(main())
