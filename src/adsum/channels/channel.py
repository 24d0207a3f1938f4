"""What an application writes: a class for the channels of one kind of topic."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from adsum.errors import ConfigurationError, UsageError
from adsum.presence import Meta, Tracked

from .client import Client
from .frames import is_reserved
from .topics import Pattern

if TYPE_CHECKING:
    from .membership import Membership

#: Why a channel ended: the client left, its connection closed, something raised, the channel
#: stopped itself, or the client joined the same topic anew.
Reason = Literal["left", "closed", "crashed", "stopped", "replaced"]
#: What a handler may answer: an object, bytes, or nothing.
Answer = Mapping[str, Any] | bytes | None
_H = TypeVar("_H", bound=Callable[..., Awaitable[Answer]])

_INCOMING, _OUTGOING = "_adsum_on", "_adsum_outgoing"


def on(event: str) -> Callable[[_H], _H]:
    """Let a method of a `Channel` handle an event from the client.

    The method gets the payload: what the client sent, any JSON value or bytes. What it returns is
    the reply, with status ``ok``: a dict or bytes; None replies nothing. Raising `RefusedError`
    replies ``error``, and the channel lives on. Any other exception ends the channel.

    Args:
        event: What phoenix.js names in ``channel.push(event, payload)``.

    Raises:
        ConfigurationError: The event is none of the application's, or the method is not async.
    """
    return _marked(_INCOMING, event)


def outgoing(event: str) -> Callable[[_H], _H]:
    """Let a method of a `Channel` look at a broadcast before it goes to its client.

    The method gets the payload and returns the one to send to this client, or None to send none.
    Broadcasts of other events go to all clients without any call. Presences are no broadcasts: a
    method for ``presence_diff`` would never be called, and is refused.

    Raises:
        ConfigurationError: The event is none of the application's, or the method is not async.
    """
    return _marked(_OUTGOING, event)


class Channel:
    """One client on one topic, from its join to its end.

    Make a subclass with a pattern of topics. An instance is made for each join; it has
    attributes of its own as any object, so what one event puts there the next one finds. Its
    methods are called one after the other, in the order in which the client sent. If one raises,
    this channel ends and its presences leave; the client is told, and joins again by itself.
    Everything else of the client goes on.

    Attributes:
        topic: What was joined, as ``room:lobby``.
        params: The parameters of the topic, as ``{"room": "lobby"}``.
        client: Who joined.
        counts_above: If set on the class: with more keys than this on the topic, clients are not
            told who is there but only how many, as ``presence_count`` with ``{"count": n}``.
            When there are a fifth fewer, they are sent the whole state, and diffs again.

    Example:
        >>> from adsum.channels import Channel, RefusedError, on
        >>> class Room(Channel, topic="room:{room}"):
        ...     async def join(self, payload):
        ...         if self.params["room"] == "cellar":
        ...             raise RefusedError("unauthorized")
        ...         self.track(self.client.values["user"], {"device": payload["device"]})
        ...
        ...     @on("shout")
        ...     async def shout(self, payload):
        ...         await self.broadcast("shout", payload)
    """

    counts_above: ClassVar[int | None] = None
    _pattern: ClassVar[Pattern | None] = None
    # The names of the methods that handle and filter events.
    _handlers: ClassVar[dict[str, str]] = {}
    _filters: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls, *, topic: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if topic is not None:
            cls._pattern = Pattern(topic)
        cls._handlers = _methods(cls, _INCOMING)
        cls._filters = _methods(cls, _OUTGOING)

    def __init__(self, membership: "Membership", params: dict[str, str]) -> None:
        self._membership = membership
        self.topic: str = membership.topic
        self.params = params
        self.client: Client = membership.connection.client

    # What a subclass may do.

    async def join(self, payload: Any) -> Answer:
        """Let the client in, or refuse. By default everybody may come in.

        Args:
            payload: What the client gave to ``socket.channel(topic, payload)``.

        Returns:
            The response to the join; None is an empty one.

        Raises:
            RefusedError: The client may not come in; it is told why.
        """

    async def terminate(self, reason: Reason) -> None:
        """Clean up after the channel has ended, for whatever reason; its presences have left.

        Called exactly once for each channel whose join was not refused, and given 5 seconds.
        """

    # What it may call.

    def track(
        self, key: str, meta: Meta | None = None, *, topic: str | None = None
    ) -> "ChannelPresence":
        """Let the client be present on the topic until the channel ends, and see who else is.

        After the reply to the join the client is sent ``presence_state`` and then each
        ``presence_diff``, as with `follow`. If the client has gone meanwhile, nobody is present:
        what this gives has ended already.

        Args:
            key: Who is present, as in `Presence.track`.
            meta: A JSON object.
            topic: Another topic to be present on, which the client does not see by that.

        Raises:
            AlreadyTrackedError: The channel tracks this key on this topic already.
            RefusedError: The client tracks and updates too often, see `Limits.updates`.
            UsageError: The channel has ended.
            TypeError: The key or the meta is not what it must be.
            ValueError: It is too long, too deep or not finite.
        """
        membership = self._membership
        membership.count_update()
        tracked = membership.track(self.topic if topic is None else topic, key, meta)
        if topic in (None, self.topic):
            membership.follow()
        return ChannelPresence(membership, tracked)

    def follow(self) -> None:
        """Let the client see who is on the topic without being seen. Idempotent."""
        self._membership.follow()

    def push(self, event: str, payload: Mapping[str, Any] | bytes) -> None:
        """Send an event to this client alone; before the join is answered, it waits until then.

        Bytes do not reach a client that polls or speaks version 1, which is logged once.

        Raises:
            TypeError: The payload is neither a JSON object nor bytes.
            ValueError: It is not finite, too deep or too large; or the event begins with ``phx_``
                or is one of presences, as ``presence_diff``.
        """
        self._membership.push(event, payload)

    async def broadcast(self, event: str, payload: Mapping[str, Any] | bytes) -> None:
        """Send an event to every client on the topic, on every node, this one included.

        Raises:
            TypeError: The payload is neither a JSON object nor bytes.
            ValueError: It is not finite, too deep or too large; or the event begins with ``phx_``
                or is one of presences, as ``presence_diff``.
        """
        await self._membership.broadcast(event, payload, to_self=True)

    async def broadcast_from(self, event: str, payload: Mapping[str, Any] | bytes) -> None:
        """As `broadcast`, to all but this client's channel."""
        await self._membership.broadcast(event, payload, to_self=False)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run something beside the channel; it is cancelled when the channel ends.

        If it raises, the channel crashes as if a handler had.
        """
        self._membership.spawn(coroutine)

    def stop(self) -> None:
        """End the channel, after what is being handled and its reply; the client stays away."""
        self._membership.end_soon("stopped")


class ChannelPresence:
    """A presence of a channel, as `Channel.track` gives it. It ends with the channel."""

    __slots__ = ("_membership", "_tracked")

    def __init__(self, membership: "Membership", tracked: Tracked) -> None:
        self._membership = membership
        self._tracked = tracked

    @property
    def active(self) -> bool:
        """Whether the presence has not ended yet."""
        return self._tracked.active

    def update(self, meta: Meta | Callable[[dict[str, Any]], Meta]) -> None:
        """Replace the meta, in place: nobody sees the key leave.

        Does nothing once the channel is ending: the client is gone.

        Args:
            meta: The new meta, or a function that makes it of (a copy of) the old one.

        Raises:
            RefusedError: The client tracks and updates too often, see `Limits.updates`.
            NotTrackedError: The presence was untracked.
            TypeError: The meta is not a JSON object; names the path.
            ValueError: It is not finite, too deep or too large.
        """
        if not self._membership.ending:
            self._membership.count_update()
            self._tracked.update(meta)

    def untrack(self) -> None:
        """End the presence; the client goes on to follow. Idempotent."""
        self._tracked.untrack()


def _marked(kind: str, event: str) -> Callable[[_H], _H]:
    if not event or event.startswith("phx_") or (kind == _OUTGOING and is_reserved(event)):
        raise ConfigurationError(
            f"event={event!r}: accepted is a text that does not begin with 'phx_' and, for "
            f"`outgoing`, is no event of presences, which are no broadcasts"
        )

    def mark(method: _H) -> _H:
        is_async: bool = asyncio.iscoroutinefunction(method)
        if not is_async:
            raise ConfigurationError(f"{method!r} handles {event!r}: it must be `async def`")
        setattr(method, kind, [*getattr(method, kind, ()), event])
        return method

    return mark


def _methods(cls: type[Channel], kind: str) -> dict[str, str]:
    """The names of marked methods by event; those of a subclass replace those that it inherits."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        own: dict[str, str] = {}
        for name, method in vars(base).items():
            for event in getattr(method, kind, ()):
                if event in own:
                    raise ConfigurationError(f"{base.__name__} handles {event!r} twice")
                own[event] = name
        found.update(own)
    return found


def pattern_of(channel: type[Channel]) -> Pattern:
    """The pattern of a channel class.

    Raises:
        UsageError: It has none.
    """
    if not issubclass(channel, Channel):
        raise UsageError(f"{channel!r} is not a subclass of Channel")
    if channel._pattern is None:
        raise UsageError(
            f'{channel.__name__} has no topic: class {channel.__name__}(Channel, topic="...")'
        )
    return channel._pattern
