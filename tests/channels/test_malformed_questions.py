"""Questions of any form from another worker: they crash nothing, and the log stays short."""

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.channels.carriers.noderequests import TOPIC
from adsum.replication.messages import Publish
from adsum.values.jsontext import dump
from tests.support.effort import examples
from tests.support.json_values import json_values

from .heartbeat import BEAT, BEATEN
from .http_poller import HttpPoller, http_poller
from .served_app import ServedApp, two_served_apps

#: Lines of one kind about one node within a minute, see `adsum.sparselog`.
FEW = 8

values = json_values(
    st.none() | st.booleans() | st.integers() | st.just("<session>") | st.text(max_size=5)
)
questions = st.fixed_dictionaries(
    {"do": st.sampled_from(["route", "poll", "send", "break off", "other"]) | values},
    optional={
        "session": st.just("<session>") | values,
        "number": st.integers(10**6, 10**6 + 3) | values,
        "body": values.filter(lambda value: not isinstance(value, str)),
        "lines": values,
    },
)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "number": st.integers(0, 3) | values,
        "index": st.just(0) | values,
        "of": st.just(1) | values,
        "text": (questions | values).map(dump) | values,
    },
)
whole = questions.map(lambda one: {"number": 1, "index": 0, "of": 1, "text": dump(one)})
payloads = (whole | bodies).map(dump) | st.binary(max_size=20)
batches = st.lists(st.tuples(st.sampled_from(["ask", "answer", "other"]), payloads), max_size=20)


def test_no_question_of_another_node_crashes_a_worker_or_fills_the_log(
    cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        apps = runner.run(stack.enter_async_context(two_served_apps(cluster_name)))
        ann = runner.run(stack.enter_async_context(http_poller(apps[0])))
        (session,) = apps[0].socket._longpoll._sessions._sessions

        @given(batches)
        @examples(100)
        def attack(batch: list[tuple[str, str | bytes]]) -> None:
            runner.run(send(apps, ann, session, batch))

        attack()
        runner.run(stack.aclose())
    shown = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert {one.name for one in shown} <= {"adsum.channels"}
    assert not [one for one in shown if one.exc_text or one.exc_info]
    assert len(shown) <= FEW


async def send(
    apps: tuple[ServedApp, ServedApp],
    ann: HttpPoller,
    session: str,
    batch: list[tuple[str, Any]],
) -> None:
    """Send questions from the second worker to the first; its client is served as before."""
    name = apps[0].node.name
    for event, payload in batch:
        text = payload.replace("<session>", session) if isinstance(payload, str) else payload
        await apps[1].node.driver.publish(Publish(TOPIC, event, text), name)
    await ann.post(BEAT)
    await ann.receives(BEATEN)
