"""Events of the protocol and of presences: only the server itself sends them."""

from typing import Any

import pytest

from adsum.channels import Channel, intercept, on
from adsum.errors import ConfigurationError
from adsum.replication.messages import Publish
from adsum.values.jsontext import dump
from adsum.values.names import RESERVED

from .app import App
from .asgi_client import asgi_client
from .captured_log import Log
from .leak_check import run

EVENTS = [
    "phx_close",
    "phx_error",
    "phx_reply",
    "phx_join",
    "phx_",
    "presence_state",
    "presence_diff",
    "presence_count",
]
FINE = ["shout", "phx", "Phx_close", "presence", "presence_diffs", "heartbeat", "disconnect"]


class Room(Channel, topic="room"):
    """Forwards the event names of clients, as a careless application does."""

    async def join(self, payload: Any) -> None:
        self.track(payload.get("user", "ann"))

    @on("forward")
    async def forward(self, payload: Any) -> dict[str, Any]:
        event = payload["event"]
        match payload["by"]:
            case "push":
                self.push(event, {})
            case "broadcast":
                await self.broadcast(event, {})
            case "broadcast_from":
                await self.broadcast_from(event, {})
        return {}


@pytest.mark.parametrize("by", ["push", "broadcast", "broadcast_from"])
@pytest.mark.parametrize("event", EVENTS)
def test_forwarded_reserved_event_crashes_only_its_channel(by: str, event: str, log: Log) -> None:
    async def main() -> None:
        app = App(Room)
        async with app.node, asgi_client(app.socket) as ann, asgi_client(app.socket) as bob:
            await bob.join("room", {"user": "bob"})
            await ann.join("room", {"user": "ann"})
            await ann.payload("presence_state")
            ann.push("1", "2", "room", "forward", {"event": event, "by": by})
            assert await ann.payload("phx_error") == {}
            await ann.is_alive()
            await bob.is_alive()
            assert not {"phx_close", "phx_error", "phx_join", "phx_"} & set(bob.events())
            assert bob.events().count("presence_state") == 1
            assert "presence_count" not in bob.events()
            (said,) = log.lines
            assert "the handler of 'forward' crashed" in said
            assert f"event='{event}': must not begin with 'phx_'" in log.everything

    run(main())


@pytest.mark.parametrize("by", ["push", "broadcast"])
@pytest.mark.parametrize("event", FINE)
def test_other_events_are_sent(by: str, event: str) -> None:
    async def main() -> None:
        app = App(Room)
        async with app.node, asgi_client(app.socket) as ann:
            await ann.join("room")
            ann.push("1", "2", "room", "forward", {"event": event, "by": by})
            assert await ann.payload(event) == {}

    run(main())


@pytest.mark.parametrize("payload", [{}, b"\0"], ids=["object", "bytes"])
@pytest.mark.parametrize("event", EVENTS)
def test_socket_refuses_to_broadcast_a_reserved_event(event: str, payload: Any) -> None:
    async def main() -> None:
        app = App(Room)
        async with app.node:
            with pytest.raises(ValueError, match=f"event='{event}': must not"):
                await app.socket.broadcast("room", event, payload)

    run(main())


@pytest.mark.parametrize(
    ("event", "error"), [("", ValueError), ("x" * 1025, ValueError), (None, TypeError)]
)
def test_push_of_a_reserved_event_is_refused(event: Any, error: type[Exception]) -> None:
    caught: list[Exception] = []

    class Pushing(Channel, topic="room"):
        async def join(self, payload: Any) -> None:
            for send in self.push, self.broadcast:
                try:
                    waits = send(event, {})
                    if waits is not None:
                        await waits
                except (TypeError, ValueError) as raised:
                    caught.append(raised)

    async def main() -> None:
        app = App(Pushing)
        async with app.node, asgi_client(app.socket) as ann:
            await ann.join("room")
            assert [type(one) for one in caught] == [error, error]

    run(main())


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("kind", ["text", "bytes"])
def test_reserved_event_of_a_member_is_dropped_with_one_line(
    event: str, kind: str, log: Log
) -> None:
    async def main() -> None:
        app = App(Room)
        async with app.node, asgi_client(app.socket) as ann:
            await ann.join("room")
            await ann.payload("presence_state")
            before = len(ann.frames)
            payload = dump({}) if kind == "text" else b"\0"
            for _ in range(50):
                message = Publish(f"{RESERVED}channels/{kind}/room", event, payload)
                app.node.driver.deliver("n2\n", message)
            await ann.is_alive()
            assert len(ann.frames) == before + 1
            (said,) = log.lines
            assert said == f"'n2\\n' sent a broadcast of the reserved event '{event}', " + (
                "which was dropped"
            )

    run(main())


@pytest.mark.parametrize(
    ("kind", "payload"), [("text", b"{}"), ("bytes", "{}"), ("bytes", bytes(192 * 1024 + 1))]
)
def test_broadcast_of_a_member_with_a_wrong_kind_or_size_is_dropped_with_one_line(
    kind: str, payload: str | bytes, log: Log
) -> None:
    async def main() -> None:
        app = App(Room)
        async with app.node, asgi_client(app.socket) as ann:
            await ann.join("room")
            await ann.payload("presence_state")
            before = len(ann.frames)
            for _ in range(50):
                message = Publish(f"{RESERVED}channels/{kind}/room", "news", payload)
                app.node.driver.deliver("n2", message)
            await ann.is_alive()
            assert len(ann.frames) == before + 1
            (said,) = log.lines
            assert said == "n2 sent a broadcast of the wrong kind or size, which was dropped"

    run(main())


@pytest.mark.parametrize("event", ["presence_state", "presence_diff", "presence_count"])
def test_method_for_presences_as_broadcasts_is_refused(event: str) -> None:
    with pytest.raises(ConfigurationError, match=f"event='{event}'"):
        intercept(event)


def test_client_may_send_events_of_any_name_that_has_a_handler() -> None:
    class Listening(Channel, topic="room"):
        @on("presence_diff")
        async def diff(self, payload: Any) -> dict[str, Any]:
            return {"got": payload}

    async def main() -> None:
        app = App(Listening)
        async with app.node, asgi_client(app.socket) as ann:
            await ann.join("room")
            ann.push("1", "2", "room", "presence_diff", {"a": 1})
            assert await ann.reply("2") == {"status": "ok", "response": {"got": {"a": 1}}}

    run(main())
