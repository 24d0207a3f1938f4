"""Requests by httpx that state whether they may be executed twice."""

import asyncio
from typing import Any

import pytest

from .clients import HttpxClient
from .registered import registered


@pytest.mark.parametrize(
    ("method", "arguments", "received"),
    [
        ("POST", {}, 1),
        ("POST", {"headers": {"idempotency-key": "1"}}, 3),
        ("POST", {"extensions": {"idempotent": True}}, 3),
        ("GET", {}, 3),
        ("GET", {"extensions": {"idempotent": False}}, 1),
    ],
)
def test_statement_of_a_request_decides_about_its_repeats(
    method: str, arguments: dict[str, Any], received: int
) -> None:
    async def work() -> None:
        async with registered("a", "b", "c", "d", rest=0) as (services, servers):
            for server in servers:
                server.drops = True
            async with HttpxClient(services) as client:
                with pytest.raises(client.errors):
                    await client.fetch("/", method, **arguments)
            assert sum(len(server.received) for server in servers) == received

    asyncio.run(work())
