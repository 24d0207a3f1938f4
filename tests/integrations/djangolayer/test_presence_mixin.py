"""The mixin for consumers: users are present from the acceptance to the end of a connection."""

import asyncio
import gc
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from channels.exceptions import DenyConnection
from channels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer
from channels.layers import InMemoryChannelLayer, channel_layers
from channels.testing import WebsocketCommunicator
from django.conf import settings

import adsum
from adsum.errors import NodeNotRunningError
from adsum.integrations.django import ChannelLayer, PresenceMixin, PresentUser, apresent, present
from adsum.integrations.django.consumerpresences import Visit
from tests.support.waiting import DEADLINE, until

if not settings.configured:
    settings.configure()


class User:
    def __init__(self, pk: int, name: str, is_authenticated: bool = True) -> None:
        self.pk, self._name, self.is_authenticated = pk, name, is_authenticated

    def get_username(self) -> str:
        return self._name


#: Seconds in which a superfluous call would arrive.
QUIET = 0.05

ANN, BOB, VISITOR = User(1, "ann"), User(2, "bob"), User(0, "", False)


class Room(PresenceMixin, AsyncJsonWebsocketConsumer):  # type: ignore[misc]  # channels has no types
    def presence_topic(self) -> str:
        return "room:1"


class PlainRoom(PresenceMixin, JsonWebsocketConsumer):  # type: ignore[misc]
    def presence_topic(self) -> str:
        return "room:1"

    def presence_changed(self, event: dict[str, Any]) -> None:
        self.send_json([user.name for user in present(event["topic"])])


class FullRoom(Room):
    async def connect(self) -> None:
        raise DenyConnection


@pytest.fixture
def layer(cluster_name: str) -> Iterator[ChannelLayer]:
    layer = ChannelLayer(cluster=cluster_name)
    channel_layers.set("default", layer)
    with layer.portal:
        yield layer
    del channel_layers.backends["default"]


def client(room: type[PresenceMixin], user: User) -> Any:
    communicator = WebsocketCommunicator(room.as_asgi(), "/")  # type: ignore[attr-defined]
    communicator.scope["user"] = user
    return communicator


async def names() -> list[str]:
    return [user.name for user in await apresent("room:1")]


def test_user_is_present_from_the_acceptance_to_the_end(layer: ChannelLayer) -> None:
    async def main() -> None:
        ann = client(Room, ANN)
        assert await ann.connect(timeout=DEADLINE)
        (user,) = await apresent("room:1")
        assert (user.key, user.name, str(user)) == ("1", "ann", "ann")
        await ann.disconnect()
        await until(lambda: layer.portal.count("room:1") == 0)

    asyncio.run(main())


def test_cancelled_synchronous_consumer_whose_thread_accepts_later_leaves_no_ghost(
    layer: ChannelLayer,
) -> None:
    connecting, cancelled, accepted = (threading.Event() for _ in range(3))

    class SlowRoom(PlainRoom):
        def connect(self) -> None:
            connecting.set()
            cancelled.wait(DEADLINE)
            self.accept()
            accepted.set()

    async def main() -> None:
        ann = client(SlowRoom, ANN)
        await ann.send_input({"type": "websocket.connect"})
        await until(connecting.is_set)
        ann.future.cancel()
        await asyncio.wait([ann.future])
        cancelled.set()
        await until(accepted.is_set)
        assert await names() == []

    asyncio.run(main())


def test_layer_that_stops_at_an_acceptance_logs_no_traceback(
    cluster_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        layer = ChannelLayer(cluster=cluster_name)
        channel = await layer.new_channel()

        async def stop() -> None:
            layer.visits.enter(Visit("room:1", "1", {}, channel, b""))
            await layer.portal.node.stop()

        with suppress(NodeNotRunningError):
            await layer.portal.acall(stop)
        await layer.close()

    asyncio.run(main())
    gc.collect()  # logs the exceptions of tasks
    assert "never retrieved" not in caplog.text


def test_user_leaves_when_the_consumer_is_cancelled(layer: ChannelLayer) -> None:
    async def main() -> None:
        ann = client(Room, ANN)
        assert await ann.connect(timeout=DEADLINE)
        ann.future.cancel()
        await until(lambda: layer.portal.count("room:1") == 0)

    asyncio.run(main())


def test_plain_consumer_receives_the_users_after_each_change(layer: ChannelLayer) -> None:
    async def main() -> None:
        ann, bob = client(PlainRoom, ANN), client(PlainRoom, BOB)
        assert await ann.connect(timeout=DEADLINE)
        await receives(ann, ["ann"])
        assert await bob.connect(timeout=DEADLINE)
        await receives(ann, ["ann", "bob"])
        await receives(bob, ["ann", "bob"])
        await ann.disconnect()
        await receives(bob, ["bob"])
        await bob.disconnect()

    asyncio.run(main())


async def receives(communicator: Any, users: list[str]) -> None:
    while await communicator.receive_json_from(timeout=DEADLINE) != users:
        continue


async def next_users(communicator: Any) -> Any:
    return await communicator.receive_json_from(timeout=DEADLINE)


@pytest.mark.parametrize("visitor", [False, True])
def test_each_change_is_one_call_and_the_own_join_is_the_first(
    layer: ChannelLayer, visitor: bool
) -> None:
    async def main() -> None:
        ann, bob = client(PlainRoom, ANN), client(PlainRoom, VISITOR if visitor else BOB)
        later = client(PlainRoom, User(3, "cat"))
        both = ["ann"] if visitor else ["ann", "bob"]
        assert await ann.connect(timeout=DEADLINE)
        assert await next_users(ann) == ["ann"]
        assert await ann.receive_nothing(QUIET)
        assert await bob.connect(timeout=DEADLINE)
        assert await next_users(bob) == both
        assert await bob.receive_nothing(QUIET)
        if not visitor:
            assert await next_users(ann) == both
        assert await ann.receive_nothing(QUIET)
        assert await later.connect(timeout=DEADLINE)
        for each in (ann, bob, later):
            assert await next_users(each) == [*both, "cat"]
        for each in (ann, bob, later):
            assert await each.receive_nothing(QUIET)
        for each in (ann, bob, later):
            await each.disconnect()

    asyncio.run(main())


def test_visitor_in_an_empty_room_is_called_once(layer: ChannelLayer) -> None:
    async def main() -> None:
        visitor = client(PlainRoom, VISITOR)
        assert await visitor.connect(timeout=DEADLINE)
        assert await next_users(visitor) == []
        assert await visitor.receive_nothing(QUIET)
        await visitor.disconnect()

    asyncio.run(main())


def test_visitor_without_an_account_is_not_listed_and_sees_the_users(layer: ChannelLayer) -> None:
    async def main() -> None:
        ann, visitor = client(PlainRoom, ANN), client(PlainRoom, User(0, "", False))
        assert await ann.connect(timeout=DEADLINE)
        await receives(ann, ["ann"])
        assert await visitor.connect(timeout=DEADLINE)
        await receives(visitor, ["ann"])
        await ann.disconnect()
        await receives(visitor, [])
        await visitor.disconnect()

    asyncio.run(main())


def test_refused_user_is_never_present(layer: ChannelLayer) -> None:
    async def main() -> None:
        connected, _ = await client(FullRoom, ANN).connect(timeout=DEADLINE)
        assert not connected
        assert await names() == []

    asyncio.run(main())


def test_user_with_two_connections_is_listed_once(layer: ChannelLayer) -> None:
    async def main() -> None:
        both = client(Room, ANN), client(Room, ANN)
        for each in both:
            assert await each.connect(timeout=DEADLINE)
        (user,) = await apresent("room:1")
        assert len(user.metas) == 2
        await both[0].disconnect()
        await until(lambda: [len(user.metas) for user in present("room:1")] == [1])
        await both[1].disconnect()

    asyncio.run(main())


def test_consumers_still_receive_changes_after_a_flush(layer: ChannelLayer) -> None:
    async def main() -> None:
        ann, bob = client(PlainRoom, ANN), client(PlainRoom, BOB)
        assert await ann.connect(timeout=DEADLINE)
        await receives(ann, ["ann"])
        await layer.flush()
        assert await bob.connect(timeout=DEADLINE)
        await receives(ann, ["ann", "bob"])
        for each in (ann, bob):
            await each.disconnect()
        await until(lambda: not layer.visits.watched)

    asyncio.run(main())


def test_room_is_watched_no_longer_if_the_channel_of_its_consumer_ends_first(
    layer: ChannelLayer,
) -> None:
    async def main() -> None:
        ann = client(PlainRoom, ANN)
        assert await ann.connect(timeout=DEADLINE)
        await receives(ann, ["ann"])
        assert layer.visits.watched == {"room:1"}
        layer.local.clear()
        await ann.disconnect()
        await until(lambda: not layer.visits.watched)

    asyncio.run(main())


@pytest.mark.parametrize("topic", ["", "x" * 1025])
def test_room_whose_name_is_no_topic_is_an_error_for_a_visitor_too(
    layer: ChannelLayer, topic: str
) -> None:
    class OddRoom(Room):
        def presence_topic(self) -> str:
            return topic

    async def main() -> None:
        with pytest.raises(ValueError, match="topic"):
            await OddRoom.as_asgi()({"type": "websocket", "user": VISITOR}, receive, send)

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, Any]) -> None:
        raise AssertionError(f"{message} was sent")

    asyncio.run(main())


def test_other_channel_layer_is_refused(layer: ChannelLayer) -> None:
    async def main() -> None:
        with pytest.raises(adsum.ConfigurationError, match="presences need the BACKEND"):
            await Room.as_asgi()({"type": "websocket", "user": ANN}, receive, send)

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, Any]) -> None:
        raise AssertionError(f"{message} was sent")

    channel_layers.set("default", InMemoryChannelLayer())
    asyncio.run(main())


def test_mixin_after_the_consumer_is_refused() -> None:
    order = r"class Late\(PresenceMixin, JsonWebsocketConsumer\)"
    with pytest.raises(adsum.ConfigurationError, match=order):

        class Late(JsonWebsocketConsumer, PresenceMixin):  # type: ignore[misc]
            pass


def test_room_after_a_consumer_that_inherits_is_refused() -> None:
    class Site(AsyncJsonWebsocketConsumer):  # type: ignore[misc]
        pass

    class Rooms(PresenceMixin):  # without a consumer, as the base of several
        pass

    class Fine(Rooms, Site):
        pass

    class Other(AsyncJsonWebsocketConsumer):  # type: ignore[misc]
        pass

    class FineAsWell(Other, Fine):  # the mixin comes before the base of all consumers
        pass

    with pytest.raises(adsum.ConfigurationError, match=r"class Late\(Rooms, Site\)"):

        class Late(Site, Rooms):
            pass


def test_scope_without_a_user_is_an_error_that_names_the_middleware(layer: ChannelLayer) -> None:
    async def main() -> None:
        with pytest.raises(adsum.ConfigurationError, match=r"no user: .*AuthMiddlewareStack"):
            await Room.as_asgi()({"type": "websocket"}, receive, send)

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, Any]) -> None:
        raise AssertionError(f"{message} was sent")

    asyncio.run(main())


@pytest.mark.parametrize("scope", [{}, {"user": None}, {"user": VISITOR}])
def test_visitor_with_a_key_of_its_own_needs_no_user(
    layer: ChannelLayer, scope: dict[str, Any]
) -> None:
    class VisitorRoom(Room):
        def presence_key(self) -> str:
            return "visitor:7"

    async def main() -> None:
        room = WebsocketCommunicator(VisitorRoom.as_asgi(), "/")
        room.scope.update(scope)
        assert await room.connect(timeout=DEADLINE)
        assert await names() == ["visitor:7"]
        await room.disconnect()

    asyncio.run(main())


def test_name_of_a_user_without_one_is_the_key() -> None:
    assert PresentUser("7", ({},)).name == "7"
