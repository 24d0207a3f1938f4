"""Mistakes in an application are told where they are made: what, the value, what is accepted."""

from typing import Any

import pytest

import adsum
from adsum.channels import Channel, Socket, intercept, on
from adsum.errors import ConfigurationError, NodeNotRunningError, UsageError
from adsum.testing import Browser, RefusedByServerError

from .leak_check import run


class Room(Channel, topic="room:{room}"):
    """Does nothing."""


def socket(channels: Any = (Room,), **settings: Any) -> Socket:
    return Socket(adsum.Presence(adsum.Node()), channels, **settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"timeout": 0}, ["timeout=0", "a number of seconds above 0"]),
        ({"timeout": -1.5}, ["timeout=-1.5", "a number of seconds above 0"]),
        ({"timeout": float("nan")}, ["timeout=nan", "a number of seconds above 0"]),
        ({"when_slow": "drop"}, ["when_slow='drop'", "'state'", "'close'"]),
        ({"when_slow": None}, ["when_slow=None", "'state'", "'close'"]),
        ({"origins": "https://a.b"}, ["origins='https://a.b'", "a list"]),
        ({"origins": ["a.b"]}, ["origins", "'a.b'", "'https://example.com'"]),
    ],
)
def test_wrong_setting_error_names_setting_value_and_range(
    settings: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        socket(**settings)
    for word in words:
        assert word in str(caught.value)


def test_duplicate_topic_of_two_channels_is_refused() -> None:
    class Other(Channel, topic="room:{room}"):
        """Another."""

    with pytest.raises(ConfigurationError, match=r"room:\{room\}"):
        socket([Room, Other])


def test_channel_without_a_topic_is_refused() -> None:
    class Nameless(Channel):
        """Has none."""

    with pytest.raises(UsageError, match="Nameless: must have a topic"):
        socket([Nameless])


@pytest.mark.parametrize("wrong", [dict, object])
def test_class_that_is_no_channel_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match="must be a subclass of Channel"):
        socket([wrong])


@pytest.mark.parametrize("mark", [on, intercept])
@pytest.mark.parametrize("event", ["", "phx_join", "phx_anything"])
def test_handler_for_a_protocol_event_is_refused(mark: Any, event: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        mark(event)
    assert f"event={event!r}" in str(caught.value)


@pytest.mark.parametrize("mark", [on, intercept])
def test_synchronous_handler_is_refused(mark: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be `async def "):

        @mark("event")  # type: ignore[untyped-decorator]  # either of two
        def handler(self: Any, payload: Any) -> None:
            """Is not."""


def test_duplicate_handler_of_an_event_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="the event 'event' has two methods"):

        class Twice(Channel, topic="twice"):
            @on("event")
            async def one(self, payload: Any) -> None:
                """The one."""

            @on("event")
            async def two(self, payload: Any) -> None:
                """The other."""


def test_socket_leaves_lifespan_to_the_surrounding_application() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="lifespan"):
            await socket()({"type": "lifespan"}, None, None)  # type: ignore[arg-type]  # not called

    run(main())


def test_broadcast_and_disconnect_raise_on_a_node_that_is_not_running() -> None:
    async def main() -> None:
        with pytest.raises(NodeNotRunningError):
            await socket().broadcast("room:1", "event", {})
        with pytest.raises(NodeNotRunningError):
            await socket().disconnect("users:1")

    run(main())


@pytest.mark.parametrize(
    ("topic", "event", "payload", "error"),
    [
        ("", "event", {}, ValueError),
        ("t" * 1024, "event", {}, ValueError),
        (1, "event", {}, TypeError),
        ("room:1", "", {}, ValueError),
        ("room:1", "event", [], TypeError),
        ("room:1", "event", "text", TypeError),
        ("room:1", "event", {1: 2}, TypeError),
        ("room:1", "event", {"a": float("inf")}, ValueError),
        ("room:1", "event", {"a": "x" * 200_000}, ValueError),
        ("room:1", "event", b"x" * 200_000, ValueError),
        ("room:" + "é" * 130, "event", b"x", ValueError),
        ("room:1", "e" * 256, b"x", ValueError),
    ],
)
def test_unencodable_broadcast_is_refused(
    topic: Any, event: str, payload: Any, error: type[Exception]
) -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        async with node:
            with pytest.raises(error):
                await Socket(adsum.Presence(node), [Room]).broadcast(topic, event, payload)

    run(main())


def test_largest_payload_is_broadcast() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        async with node:
            made = Socket(adsum.Presence(node), [Room])
            await made.broadcast("room:1", "event", {"a": "x" * (192 * 1024 - 8)})
            await made.broadcast("room:1", "event", b"x" * (192 * 1024))
            with pytest.raises(ValueError, match="at most 196608"):
                await made.broadcast("room:1", "event", b"x" * (192 * 1024 + 1))

    run(main())


def test_node_that_is_not_running_is_logged_once_until_it_runs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = adsum.Node(siblings=False)
    served_app = Socket(adsum.Presence(node), [])

    async def refused() -> list[str]:
        caplog.clear()
        for _ in range(3):
            with pytest.raises(RefusedByServerError):
                await Browser(served_app).connect()
        return [record.getMessage() for record in caplog.records]

    async def main() -> None:
        (never,) = await refused()
        assert "it was never started" in never
        assert "Daphne runs no lifespan" in never
        async with node, Browser(served_app):
            pass
        assert await refused() == [
            "all clients are refused: the node is not running: it has stopped"
        ]

    run(main())
