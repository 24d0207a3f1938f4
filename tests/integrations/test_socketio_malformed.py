"""Malformed operations of another process: each is dropped, and the log stays short."""

import asyncio
import gc
import json
import secrets
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import pytest
import socketio
from hypothesis import given
from hypothesis import strategies as st

import adsum
from adsum.integrations import socketio as managers
from adsum.integrations.socketio import AdsumManager, AsyncAdsumManager
from tests.support.effort import examples
from tests.support.json_values import json_values
from tests.support.nodes import run
from tests.support.waiting import eventually, until

from .short_log import short_log
from .socketio_worker import TOPIC, Site, sites

LOGGER = "adsum.integrations.socketio"
#: Lines of one kind about one node within a minute, see `adsum.sparselog`.
FEW = 8
#: Levels that the decoder accepts, and the functions that look for bytes do not.
LEVELS = 700 if sys.version_info < (3, 12) else 2000
#: The room of a callback, and stand-ins that are replaced by what the process knows.
ROOM, HOST, SID = "room", "<host>", "<sid>"
EMIT = {"method": "emit", "event": "said", "data": [1], "namespace": "/", "host_id": "peer"}
ANSWER = {"method": "callback", "host_id": HOST, "sid": ROOM, "id": 1, "args": []}
OF_CLIENT = {"sid": SID, "namespace": "/"}
MALFORMED: list[Any] = [
    "text",
    17,
    [EMIT],
    {},
    {"method": ["emit"]},
    {"method": "shutdown"},
    {"method": "emit"},
    EMIT | {"event": {"a": 1}},
    EMIT | {"data": "text"},
    EMIT | {"namespace": ["/"]},
    EMIT | {"room": {"a": 1}},
    EMIT | {"room": []},
    EMIT | {"room": [["a"]]},
    EMIT | {"skip_sid": {"a": 1}},
    EMIT | {"callback": [ROOM, "/", 1], "host_id": None},
    EMIT | {"callback": [ROOM, "/"]},
    EMIT | {"callback": [ROOM, "/", "1"]},
    EMIT | {"callback": [ROOM, "/", 1], "event": 1},
    EMIT | {"binary": True, "data": []},
    EMIT | {"binary": True, "data": ["text", "AA=="]},
    EMIT | {"binary": True, "data": [[{"_placeholder": True, "num": 0}]]},
    EMIT | {"binary": True, "data": [[{"_placeholder": True, "num": [0]}], "AA=="]},
    EMIT | {"binary": True, "data": [[{"_placeholder": True, "num": 0}] * 2, "AA=="]},
    EMIT | {"binary": True, "data": [[{"_placeholder": True, "num": 0}], "é"]},
    {"method": "enter_room", **OF_CLIENT},
    {"method": "enter_room", **OF_CLIENT, "room": ["a"]},
    {"method": "enter_room", **OF_CLIENT, "sid": {"a": 1}, "room": "a"},
    {"method": "enter_room", **OF_CLIENT, "sid": "x", "room": SID},
    {"method": "leave_room", **OF_CLIENT},
    {"method": "leave_room", **OF_CLIENT, "namespace": {}, "room": "a"},
    {"method": "close_room", "namespace": "/"},
    {"method": "close_room", "namespace": "/", "room": SID},
    {"method": "close_room", "namespace": [], "room": "a"},
    {"method": "disconnect", "sid": ["x"], "namespace": "/"},
    ANSWER | {"id": 0},
    ANSWER | {"id": 7},
    ANSWER | {"id": [1]},
    ANSWER | {"sid": ["room"]},
    ANSWER | {"args": 5},
    ANSWER | {"args": None},
]


def encoded(value: Any, sid: str, host: str) -> bytes:
    """The text of an operation about a client and a process."""
    return json.dumps(value).replace(SID, sid).replace(HOST, host).encode()


@contextmanager
def few_lines(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Check the lines of the managers, also those that were held back."""
    with short_log(caplog, LOGGER, FEW):
        yield
        managers._log.flush()


def named(value: Any) -> str:
    return json.dumps(value)[:80]


@pytest.fixture(scope="module")
def portals() -> Iterator[tuple[adsum.Portal, adsum.Portal]]:
    """Two processes of one cluster, as their threads see them."""
    cluster = f"test-{secrets.token_hex(8)}"
    nodes = [adsum.Node(cluster=cluster, name=name) for name in ("own", "peer")]
    with adsum.Portal(nodes[0]) as own, adsum.Portal(nodes[1]) as peer:
        yield own, peer


@pytest.mark.parametrize("operation", MALFORMED, ids=named)
def test_malformed_operation_is_dropped_with_one_line_and_the_next_is_applied(
    operation: Any, portals: tuple[adsum.Portal, adsum.Portal], caplog: pytest.LogCaptureFixture
) -> None:
    own, peer = portals
    channel = secrets.token_hex(8)
    manager = AdsumManager(own, channel)
    socketio.Server(async_mode="threading", client_manager=manager)
    manager.initialize()
    sid = manager.pre_connect("eio", "/")
    manager.connect(sid, "/")
    called: list[Any] = []
    assert manager._generate_ack_id(ROOM, called.append) == 1
    with few_lines(caplog):
        for _ in range(30):
            peer.publish(f"socketio:{channel}", encoded(operation, sid, manager.host_id))
        last = encoded(ANSWER | {"args": ["last"]}, sid, manager.host_id)
        peer.publish(f"socketio:{channel}", last)
        eventually(lambda: called == ["last"], "the operation after them is applied")
    assert "an operation of node 'peer' was dropped: " in caplog.text
    assert manager.is_connected(sid, "/")
    assert manager.get_rooms(sid, "/") == [sid]
    assert manager._generate_ack_id(ROOM, called.append) == 2


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("serializer", "value", "error"),
    [
        ("default", nested(LEVELS), "RecursionError"),
        ("msgpack", 2**70, "OverflowError"),
        ("msgpack", "\ud800", "UnicodeEncodeError"),
    ],
    ids=["nested", "number", "surrogate"],
)
def test_emit_that_cannot_be_encoded_for_clients_is_dropped_with_one_line(
    serializer: str, value: Any, error: str, cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    to_all = EMIT | {"data": [value]}
    to_one = {**to_all, "room": SID, "callback": [SID, "/", 1]}

    async def main() -> None:
        async with sites(cluster_name, serializer=serializer) as (nodes, site):
            sid = str(site.client.get_sid())
            pubsub = adsum.PubSub(nodes[0])
            with few_lines(caplog):
                for operation in [to_all, to_one] * 20:
                    await pubsub.publish(TOPIC, encoded(operation, sid, ""))
                await AsyncAdsumManager(nodes[0], write_only=True).emit("said", "last")
                await until(lambda: site.received == ["last"])
                gc.collect()  # tasks with an error that nothing has read
            assert f"was dropped: {error}" in caplog.text

    run(main())


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["/", SID, HOST, ROOM])
)
values = json_values(scalars)
METHODS = ["emit", "callback", "enter_room", "leave_room", "close_room", "other"]
operations = st.fixed_dictionaries(
    {"method": st.sampled_from(METHODS)},
    optional={
        "event": st.sampled_from(["heard", "said"]) | values,
        "data": st.lists(values, max_size=3) | values,
        "binary": st.booleans(),
        "namespace": st.sampled_from(["/", "/chat"]) | values,
        "room": values,
        "sid": values,
        "skip_sid": values,
        "callback": st.tuples(values, values, st.integers(0, 3)) | values,
        "host_id": st.text(max_size=3) | values,
        "id": st.integers(0, 3) | values,
        "args": st.lists(values, max_size=2) | values,
    },
)


def test_no_text_of_another_process_ends_the_reader_or_fills_the_log(
    cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever another process sends; but disconnects, and emits of the event that is awaited."""
    with asyncio.Runner() as runner, few_lines(caplog):
        stack = AsyncExitStack()
        nodes, site = runner.run(stack.enter_async_context(sites(cluster_name)))
        pubsub = adsum.PubSub(nodes[0])
        other = AsyncAdsumManager(nodes[0], write_only=True)

        async def send(texts: list[bytes], site: Site) -> None:
            for text in texts:
                await pubsub.publish(TOPIC, text)
            await other.emit("said", "last")
            await until(lambda: "last" in site.received, "the operation after them is applied")
            site.received.clear()

        @given(st.lists(st.binary(max_size=50) | values | operations, max_size=20))
        @examples(100)
        def attack(payloads: list[Any]) -> None:
            sid, host = str(site.client.get_sid()), site.manager.host_id
            texts = [one if isinstance(one, bytes) else encoded(one, sid, host) for one in payloads]
            runner.run(send(texts, site))

        try:
            attack()
        finally:
            runner.run(stack.aclose())
