"""Users in a room or on a page: a mixin for consumers, and lists for views and templates."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from channels.consumer import AsyncConsumer
from channels.layers import get_channel_layer

from adsum.errors import ConfigurationError
from adsum.quoting import quoted
from adsum.values.names import checked_topic
from channels import DEFAULT_CHANNEL_LAYER

from .channellayer import ChannelLayer
from .consumerpresences import Visit

#: Messages of an application that accept a connection.
_ACCEPTING = ("websocket.accept", "http.response.start")

Send = Callable[[dict[str, Any]], Awaitable[None]]


class PresentUser(NamedTuple):
    """A present user.

    Attributes:
        key: The primary key of the user, as text.
        metas: The meta of each connection of the user.
    """

    key: str
    metas: tuple[Mapping[str, Any], ...]

    @property
    def name(self) -> str:
        """The name of the user."""
        return str(self.metas[0].get("name", self.key))

    def __str__(self) -> str:
        return self.name


class PresenceMixin:
    """Tracks the user of a consumer in a room, from the acceptance to the end of its connection.

    Put it before the class of the consumer, plain or asynchronous, and define `presence_topic`. If
    the consumer has a method `presence_changed`, it is called with ``{"type": "presence.changed",
    "topic": ...}`` once in the beginning, and once after each later change of the room. Changes
    that come together are one call. The channel layer of the consumer must be that of adsum.

    Raises:
        ConfigurationError: A class has the mixin after the consumer among its bases. A connection
            raises it if it has another channel layer, or no user in its scope and no `presence_key`
            of its own.

    Example:
        >>> from channels.generic.websocket import AsyncJsonWebsocketConsumer
        >>> class Room(PresenceMixin, AsyncJsonWebsocketConsumer):
        ...     def presence_topic(self):
        ...         return f"room:{self.scope['url_route']['kwargs']['room']}"
        ...
        ...     async def presence_changed(self, event):
        ...         users = await apresent(event["topic"])
        ...         await self.send_json({"users": [user.name for user in users]})
    """

    scope: Mapping[str, Any]
    channel_layer: Any
    channel_name: str

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # The `__call__` of a consumer does not call that of a later class.
        if AsyncConsumer in cls.__mro__[: cls.__mro__.index(PresenceMixin)]:
            bases = sorted(cls.__bases__, key=lambda base: not issubclass(base, PresenceMixin))
            order = ", ".join(base.__name__ for base in bases)
            raise ConfigurationError(
                f"the consumer stands before the PresenceMixin, which would track nobody: must be "
                f"class {cls.__name__}({order})"
            )

    def presence_topic(self) -> str:
        """The room: a topic of 1 to 1,024 characters. Every consumer defines it."""
        raise NotImplementedError(f"{type(self).__qualname__} must define presence_topic()")

    def presence_key(self) -> str | None:
        """The user: by default the primary key, and None without a sign-in.

        None is not tracked.

        Raises:
            ConfigurationError: The scope has no user, not even an anonymous one.
        """
        if "user" not in self.scope:
            raise ConfigurationError(
                "the scope has no user: wrap the routes of the consumers in AuthMiddlewareStack of "
                "channels.auth, or define presence_key()"
            )
        user = self.scope["user"]
        return str(user.pk) if user is not None and user.is_authenticated else None

    def presence_meta(self) -> dict[str, Any]:
        """A JSON object that is shown with the user: by default the name, if there is one."""
        user = self.scope.get("user")
        name = "" if user is None else user.get_username()
        return {"name": name} if name else {}

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        """Run the consumer."""
        visits: list[Visit] = []
        has_ended = False

        async def send_when_present(message: dict[str, Any]) -> None:
            # The thread of a synchronous consumer goes on after it was cancelled.
            if message["type"] in _ACCEPTING and not visits and not has_ended:
                visits.append(self._visit())
                layer = self.channel_layer
                await layer.portal.acall(layer.visits.enter, visits[0])
            await send(message)

        try:
            await super().__call__(scope, receive, send_when_present)  # type: ignore[misc]
        finally:
            has_ended = True
            for visit in visits:
                visit.has_ended = True
                _leave(self.channel_layer, visit)

    def _visit(self) -> Visit:
        layer = _checked(self.channel_layer)
        topic, key = checked_topic(self.presence_topic()), self.presence_key()
        channel = str(self.channel_name) if hasattr(self, "presence_changed") else None
        news = layer.serialize({"type": "presence.changed", "topic": topic})
        return Visit(topic, key, {} if key is None else self.presence_meta(), channel, news)


def present(topic: str, layer: str = DEFAULT_CHANNEL_LAYER) -> list[PresentUser]:
    """The users in a room, sorted by key, for synchronous code.

    Args:
        topic: The room.
        layer: The alias of the channel layer.

    Raises:
        ConfigurationError: The channel layer is not that of adsum.
    """
    return _users(_checked(get_channel_layer(layer)).portal.list(topic))


async def apresent(topic: str, layer: str = DEFAULT_CHANNEL_LAYER) -> list[PresentUser]:
    """As `present`, for asynchronous code."""
    found = _checked(get_channel_layer(layer))
    return _users(await found.portal.acall(found.presence.list, topic))


def _users(entries: Mapping[str, Any]) -> list[PresentUser]:
    return [PresentUser(key, tuple(entry["metas"])) for key, entry in sorted(entries.items())]


def _checked(layer: object) -> ChannelLayer:
    if not isinstance(layer, ChannelLayer):
        raise ConfigurationError(
            f"the channel layer is {quoted(layer)}: presences need the BACKEND "
            f"adsum.integrations.django.ChannelLayer in CHANNEL_LAYERS"
        )
    return layer


def _leave(layer: ChannelLayer, visit: Visit) -> None:
    """End a visit without waiting, because the consumer may be cancelled."""
    place = layer.portal.node.event_loop
    if place is not None:
        with suppress(RuntimeError):  # the loop is closed, and its presences have ended
            place[0].call_soon_threadsafe(layer.visits.leave, visit)
