"""Presences of a topic that are longer than long polling can carry, with the true limits."""

import json

import pytest

from adsum.channels.carriers.session import MAX_STATE
from tests.support.waiting import until

from .captured_log import Log
from .heartbeat import BEAT, BEATEN
from .http_poller import http_poller
from .leak_check import run
from .served_app import two_served_apps
from .ws_client import ws_client

#: Quotes and backslashes double on the way between workers.
TEXT = '"\\' * 15_000


@pytest.mark.parametrize("where", ["at its worker", "at another one"])
def test_state_that_is_too_long_closes_its_channel_and_names_the_remedy(
    where: str, cluster_name: str, log: Log
) -> None:
    async def main() -> None:
        async with (
            two_served_apps(cluster_name) as (one, two),
            http_poller(one) as ann,
            ws_client(one) as bob,
        ):
            for n in range(MAX_STATE // 60_000 + 1):
                one.presence.track("room:1", f"key{n}", {"text": TEXT}, owner=None)
            ann.app = one if where == "at its worker" else two
            await ann.post('["3","3","room:1","phx_join",{"follow":true}]')
            await ann.receives(
                '["3","3","room:1","phx_reply",{"status":"ok","response":{}}]',
                '["3","3","room:1","phx_close",{}]',
            )
            (line,) = log.lines
            assert "counts_above" in line
            assert "room:1" in line
            await ann.post(BEAT)
            await ann.receives(BEATEN)
            await bob.join("room:1")  # and nothing else is closed
            await until(lambda: one.socket.stats()["channels"] == 1)

    run(main())


@pytest.mark.slow
def test_longest_state_reaches_a_client_through_another_worker(cluster_name: str) -> None:
    async def main() -> None:
        async with two_served_apps(cluster_name) as (one, two), http_poller(one) as ann:
            ann.app = two
            count = MAX_STATE // 60_000 - 2
            for n in range(count):
                one.presence.track("room:1", f"key{n}", {"text": TEXT}, owner=None)
            await ann.post('["3","3","room:1","phx_join",{"follow":true}]')
            _, state = await ann.frames(2)
            assert len(state) > 0.98 * MAX_STATE
            assert len(json.loads(state)[4]) == count

    run(main())
