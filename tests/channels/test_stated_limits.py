"""The actions of clients and pages that SECURITY.md states as possible, each shown to be so."""

from collections.abc import Sequence
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from .http_poller import http_poller, unasked_http_poller
from .leak_check import run
from .served_app import ServedApp, served_app
from .ws_client import url

pytestmark = pytest.mark.usefixtures("each_carrier")


def test_stolen_session_token_reads_and_sends_for_its_session() -> None:
    async def main() -> None:
        async with (
            served_app() as made,
            http_poller(made) as ann,
            unasked_http_poller(made) as thief,
        ):
            await ann.join("room:1")
            thief.token = ann.token
            assert await thief.post('["3","9","room:1","echo",{"n":1}]') == {"status": 200}
            await thief.receives(
                '["3","9","room:1","phx_reply",{"status":"ok","response":{"n":1}}]'
            )

    run(main())


def test_old_session_token_still_sends_for_its_session() -> None:
    async def main() -> None:
        async with (
            served_app() as made,
            http_poller(made) as ann,
            unasked_http_poller(made) as thief,
        ):
            thief.token = ann.token
            await ann.join("room:1")
            assert ann.token != thief.token
            assert await thief.post('["3","9","room:1","echo",{"n":1}]') == {"status": 200}
            await ann.receives('["3","9","room:1","phx_reply",{"status":"ok","response":{"n":1}}]')

    run(main())


def test_token_of_an_ended_session_opens_nothing() -> None:
    async def main() -> None:
        async with (
            served_app() as made,
            http_poller(made) as ann,
            unasked_http_poller(made) as thief,
        ):
            thief.token = ann.token
            await ann.post("garbage")
            assert (await ann.get())["status"] == 500
            assert await thief.post('["3","3","room:1","phx_join",{}]') == {"status": 410}
            token = str(thief.token)
            assert (await thief.get(token))["messages"] == []

    run(main())


@pytest.mark.parametrize(("origins", "accepted"), [(None, True), (["http://here.example"], False)])
def test_dns_rebinding_origin_is_accepted_unless_origins_are_set(
    origins: Sequence[str] | None, accepted: bool
) -> None:
    """DNS rebinding: the browser sends the attacker's name as both `Host` and `Origin`."""

    async def main() -> None:
        async with served_app(origins=origins) as made:
            assert await accepts(made, "evil.example") is accepted

    run(main())


async def accepts(made: ServedApp, name: str) -> bool:
    """Whether a page of a host gets in, if that name leads to this server."""
    host = f"{name}:{made.port}"
    here: dict[str, Any] = {"host": "127.0.0.1", "port": made.port}
    there = url(made).replace("127.0.0.1", name)
    try:
        async with connect(there, origin=Origin(f"http://{host}"), proxy=None, **here):
            return True
    except InvalidStatus as error:
        return error.response.status_code != 403
