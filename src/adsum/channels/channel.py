"""`Channel`: the class that applications subclass to serve one kind of topic."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ClassVar, Literal, Protocol

from adsum.arguments import named, parameters, refuse, takes, whole
from adsum.errors import ConfigurationError
from adsum.quoting import quoted
from adsum.tracked import Meta, Tracked
from adsum.values.limits import MAX_NAME
from adsum.values.names import checked_name

from .client import Client
from .handlers import Answer, check_method, handlers_of, intercepts_of
from .wire.patterns import Pattern

#: Why a channel ended: the client left, its connection closed, application code raised, the
#: channel stopped itself, or the client joined the same topic again.
Reason = Literal["left", "closed", "crashed", "stopped", "replaced"]
#: Methods that a subclass may override, each with the name of its argument.
_OVERRIDDEN = {"join": "payload", "terminate": "reason"}
#: Attributes of an instance that are not methods; they would hide a handler of the same name.
_ATTRIBUTES = ("topic", "params", "client")


class ProcessHandle(Protocol):
    """The process that runs a channel, as the channel uses it. Not for applications."""

    topic: str

    @property
    def client(self) -> Client:
        """The client that joined."""

    @property
    def ending(self) -> bool:
        """Whether the client has gone, or the channel has ended."""

    def track(
        self, topic: str, key: str, meta: Meta | None, linger: float, device: str | None
    ) -> Tracked:
        """Track a presence that ends with the channel, or some seconds later if that breaks."""

    def count_update(self) -> None:
        """Count one track or update against the rate limit of presences."""

    def follow(self) -> None:
        """Send the client the presences of its topic."""

    def push(self, event: str, payload: Mapping[str, Any] | bytes) -> None:
        """Send an event to the client."""

    async def broadcast(
        self, event: str, payload: Mapping[str, Any] | bytes, *, to_self: bool
    ) -> None:
        """Send an event to all clients on the topic, with or without this one."""

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine as a task of the channel."""

    def end_soon(self, reason: Reason) -> None:
        """End the channel after the current handler."""


class Channel:
    """One client on one topic, from its join to its end.

    Subclass it with a topic pattern. Each join creates an instance, so a handler may keep state
    for later events in attributes of ``self``. Its methods are called one at a time, in the order
    in which the client sent the events, and all in one task, which ends with the channel. If a
    method raises, this channel ends and its presences leave, after their `linger`; the client is
    sent ``phx_error`` and rejoins by itself. The client's other channels go on.

    Override `join` and `terminate`; mark handlers of events with `on`, and filters of broadcasts
    with `intercept`. A subclass whose methods could not be called is refused at its definition:
    `join`, `terminate`, handlers and filters must be ``async def`` and take one argument besides
    ``self``.

    Attributes:
        topic: The topic that was joined, as ``room:lobby``.
        params: The parameters of the topic, as ``{"room": "lobby"}``.
        client: The client that joined.
        counts_above: A number of keys, set on the class. With more keys than this on the topic,
            clients are sent only the number of keys, as ``presence_count`` with ``{"count": n}``.
            Once there are a fifth fewer, they are sent the whole state, and then diffs again. With
            0, clients are never sent names.

    Raises:
        ConfigurationError: At the definition of a subclass: its pattern, `counts_above` or a
            method is wrong.

    Example:
        >>> from adsum.channels import Channel, RefusedError, on
        >>> class Room(Channel, topic="room:{room}"):
        ...     async def join(self, payload):
        ...         if self.params["room"] == "cellar":
        ...             raise RefusedError("unauthorized")
        ...         self.track(self.client.assigns["user"], {"device": payload["device"]})
        ...
        ...     @on("shout")
        ...     async def shout(self, payload):
        ...         await self.broadcast("shout", payload)
    """

    counts_above: ClassVar[int | None] = None
    _pattern: ClassVar[Pattern | None] = None
    # The names of the methods that handle events and filter broadcasts.
    _handlers: ClassVar[dict[str, str]] = {}
    _intercepts: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls, *, topic: str | None = None, **kwargs: Any) -> None:
        """Define a class of channels: ``class Room(Channel, topic="room:{room}")``.

        Args:
            topic: The pattern of the topics that the class serves: parts between colons, each a
                text or the name of a parameter in braces, which matches one or more characters
                other than a colon. The last parameter may end in three dots, as in
                ``room:{path...}``: it matches the rest of the topic, colons included. A class
                without a pattern serves as a base of others, which inherit its handlers.
            kwargs: Arguments of other base classes.

        Raises:
            ConfigurationError: The pattern, `counts_above` or a method is wrong.
        """
        super().__init_subclass__(**kwargs)
        if topic is not None:
            cls._pattern = Pattern(topic)
        cls._handlers = handlers_of(cls)
        cls._intercepts = intercepts_of(cls)
        check_class(cls)

    def __init__(self, process: ProcessHandle, params: dict[str, str]) -> None:
        """Create the channel of one join; adsum calls it, applications do not.

        A subclass with an `__init__` of its own takes both arguments and passes them on with
        ``super().__init__(process, params)``. Code that may await or refuse belongs in `join`.

        Args:
            process: Internal.
            params: The parameters of the topic.
        """
        self._process = process
        self.topic: str = process.topic
        self.params = params
        self.client: Client = process.client

    # For subclasses to override.

    async def join(self, payload: Any) -> Answer:
        """Accept or refuse the join. The default accepts every client.

        Args:
            payload: The join parameters, as in ``socket.channel(topic, payload)`` of phoenix.js.

        Returns:
            The response to the join; None is an empty one.

        Raises:
            RefusedError: The join is refused; its response is sent to the client.
        """

    async def terminate(self, reason: Reason) -> None:
        """Clean up after the channel has ended, for any reason.

        Its presences have left; those with a linger that broke stay until its end.

        Called exactly once for each channel whose join was not refused. It is cancelled after 5
        seconds.
        """

    # For subclasses to call.

    def track(
        self,
        key: str,
        meta: Meta | None = None,
        *,
        topic: str | None = None,
        linger: float = 0.0,
        device: str | None = None,
    ) -> "ChannelPresence":
        """Track the client as present on the topic until the channel ends, and follow the topic.

        After the reply to the join the client is sent ``presence_state`` and then each
        ``presence_diff``, as with `follow`. If the client has already gone, nothing is tracked and
        the returned presence has ended.

        Args:
            key: The key of the presence, as in `Presence.track`.
            meta: A JSON object.
            topic: Another topic to be present on; the client does not follow that one.
            linger: Seconds of active time, from 0 to 3600, for which the presence stays listed
                after the channel has broken: its connection was lost, its code crashed, or the
                client joined again. If a channel of this node tracks the key again in this time, it
                takes the presence over, and its meta is replaced in place. The presence leaves at
                once if the client leaves, after `stop`, and after `Socket.disconnect`.
            device: Identifies the device of the client across its connections, 1 to 1,024
                characters, such as an id that the page keeps in its session storage. Then only
                channels of this device take the presence over. Without it, any channel without a
                device does, so the first of two devices may lose its linger to the second.

        Raises:
            AlreadyTrackedError: The channel tracks this key on this topic already, without a
                linger.
            ConfigurationError: `linger` is not a number of seconds in its range.
            RefusedError: The client tracks and updates too often, see `Limits.updates`.
            UsageError: The channel has ended, or has named 16 other devices.
            TypeError: The topic, the key or the device is not a string, or the meta is not a JSON
                object.
            ValueError: The topic, the key, the device or the meta is too long, or the meta is too
                deep or not finite.
        """
        process = self._process
        process.count_update()
        if device is not None:
            device = checked_name(device, "device", MAX_NAME)
        place = self.topic if topic is None else topic
        tracked = process.track(place, key, meta, linger, device)
        if topic in (None, self.topic):
            process.follow()
        return ChannelPresence(process, tracked)

    def follow(self) -> None:
        """Send the client the presences of its topic, without tracking it. Idempotent."""
        self._process.follow()

    def push(self, event: str, payload: Mapping[str, Any] | bytes) -> None:
        """Send an event to this client alone; before the reply to the join, it is queued.

        Bytes cannot be sent to a client that polls or speaks version 1; this is logged once.

        Raises:
            TypeError: The payload is neither a JSON object nor bytes.
            ValueError: The payload is not finite, too deep or too large; or the event is reserved:
                it begins with ``phx_`` or is one of presences, as ``presence_diff``.
        """
        self._process.push(event, payload)

    async def broadcast(self, event: str, payload: Mapping[str, Any] | bytes) -> None:
        """Send an event to every client on the topic, on every node, this one included.

        It returns once each client of this node has been sent the event, and waits, at most 1 s
        for each, for nodes without room and for nodes whose clients are far behind.

        Raises:
            TypeError: The payload is neither a JSON object nor bytes.
            ValueError: The payload is not finite, too deep or too large; or the event is reserved:
                it begins with ``phx_`` or is one of presences, as ``presence_diff``.
        """
        await self._process.broadcast(event, payload, to_self=True)

    async def broadcast_from(self, event: str, payload: Mapping[str, Any] | bytes) -> None:
        """Send an event as `broadcast` does, to every client on the topic except this one."""
        await self._process.broadcast(event, payload, to_self=False)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine as a task of the channel; it is cancelled when the channel ends.

        If it raises, the channel crashes as if a handler had raised.

        Args:
            coroutine: A coroutine, as ``self.tick()``, with the parentheses.

        Raises:
            ConfigurationError: It is not a coroutine.
            UsageError: The channel has ended.
        """
        if not asyncio.iscoroutine(coroutine):
            refuse("coroutine", coroutine, "a coroutine, as self.spawn(self.tick())")
        self._process.spawn(coroutine)

    def stop(self) -> None:
        """End the channel after the current handler and its reply; the client does not rejoin."""
        self._process.end_soon("stopped")

    def __repr__(self) -> str:
        topic = self.__dict__.get("topic", "")
        return f"<{type(self).__name__} on {quoted(topic)}>"


class ChannelPresence:
    """A presence of a channel, returned by `Channel.track`. It ends with the channel.

    With a `linger` it stays for some seconds if the channel breaks.

    Example:
        >>> from adsum.channels import Channel, on
        >>> class Room(Channel, topic="room:{room}"):
        ...     async def join(self, payload):
        ...         self.me = self.track(payload["user"], {"away": False})
        ...
        ...     @on("away")
        ...     async def away(self, payload):
        ...         self.me.update(lambda meta: {**meta, "away": True})
    """

    __slots__ = ("_process", "_tracked")

    def __init__(self, process: ProcessHandle, tracked: Tracked) -> None:
        """Internal: call `Channel.track`."""
        self._process = process
        self._tracked = tracked

    @property
    def active(self) -> bool:
        """Whether the presence has not ended yet."""
        return self._tracked.active

    def update(self, meta: Meta | Callable[[dict[str, Any]], Meta]) -> None:
        """Replace the meta in place: no follower sees the key leave.

        Does nothing once the channel is ending: the client is gone.

        Args:
            meta: The new meta, or a function that returns it, given a copy of the old one.

        Raises:
            RefusedError: The client tracks and updates too often, see `Limits.updates`.
            NotTrackedError: The presence was untracked.
            TypeError: The meta is not a JSON object; names the path.
            ValueError: It is not finite, too deep or too large.
        """
        if not self._process.ending:
            self._process.count_update()
            self._tracked.update(meta)

    def untrack(self) -> None:
        """End the presence; the client continues to follow the topic. Idempotent."""
        self._tracked.untrack()

    def __repr__(self) -> str:
        return repr(self._tracked).replace("Tracked", "ChannelPresence", 1)


#: The methods and attributes of a channel that a handler must not hide.
_OWN_NAMES = frozenset({*(name for name in vars(Channel) if name[0] != "_"), *_ATTRIBUTES})


def check_class(channel: type[Channel]) -> None:
    """Check that a channel class can be instantiated and its methods called.

    Raises:
        ConfigurationError: A method is not async or takes other arguments, or an attribute is
            wrong.
    """
    if channel.counts_above is not None:
        whole(f"{channel.__name__}.counts_above", channel.counts_above, 0)
    marked = [*channel._handlers.items(), *channel._intercepts.items()]
    for event, name in marked:
        if name in _OWN_NAMES:
            raise ConfigurationError(
                f"{channel.__name__}.{name} handles {event!r} and hides the attribute of Channel "
                f"with that name; rename the method, as on_{name}"
            )
    calls = dict(_OVERRIDDEN) | {name: "payload" for _, name in marked}
    for name, argument in calls.items():
        check_method(channel, name, argument)
    if not takes(channel.__init__, 3):
        raise ConfigurationError(
            f"{channel.__name__}.__init__{parameters(channel.__init__)}: must take "
            f"(self, process, params) and pass them to super().__init__"
        )


def pattern_of(channel: Any) -> Pattern:
    """The pattern of a channel class.

    Raises:
        ConfigurationError: It is not a channel class, it has no pattern, or it was modified after
            its definition so that its methods cannot be called.
    """
    if not isinstance(channel, type) or not issubclass(channel, Channel):
        hint = ""
        if isinstance(channel, Channel):
            hint = f"; pass the class itself, {type(channel).__name__}"
        raise ConfigurationError(f"channels: {named(channel)}: must be a subclass of Channel{hint}")
    check_class(channel)
    if inspect.isabstract(channel):
        raise ConfigurationError(f"channels: {channel.__name__}: must have no abstract methods")
    if channel._pattern is None:
        raise ConfigurationError(
            f"{channel.__name__}: must have a topic, "
            f'as class {channel.__name__}(Channel, topic="...")'
        )
    return channel._pattern
