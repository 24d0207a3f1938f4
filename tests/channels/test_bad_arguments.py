"""Mistakes in channels are refused where a class or a socket is made, not at the first client."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import AsyncMock

import pytest

import adsum
from adsum.channels import (
    Answer,
    Channel,
    Client,
    Limits,
    Reason,
    RefusedError,
    Socket,
    intercept,
    on,
)
from adsum.errors import ConfigurationError
from adsum.testing import Browser

from .leak_check import run

NAN = float("nan")


class Room(Channel, topic="room:{room}"):
    """Does nothing."""


def presence() -> adsum.Presence:
    return adsum.Presence(adsum.Node(siblings=False))


def socket(channels: Any = (Room,), **settings: Any) -> Socket:
    return Socket(presence(), channels, **settings)


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        call()
    assert len(str(caught.value)) < 500
    return str(caught.value)


# Sockets.


def plain(client: Client) -> None:
    """Is not async."""


async def none() -> None:
    """Takes nothing."""


async def connect(client: Client) -> None:
    """Lets everybody in."""


class Other(Channel, topic="room:{other}"):
    """Is never reached after `Room`."""


class Lobby(Channel, topic="room:lobby"):
    """Is never reached after `Room`, either."""


class Nameless(Channel):
    """Has no topic."""


@pytest.mark.parametrize(
    ("call", "beginning", "accepted"),
    [
        (lambda: Socket(adsum.Node(), [Room]), "presence=<Node ", "an adsum.Presence"),  # type: ignore[arg-type]
        (lambda: Socket(None, [Room]), "presence=None", "an adsum.Presence"),  # type: ignore[arg-type]
        (lambda: socket(Room), "channels=Room", "a list of classes, as [Room]"),
        (lambda: socket("room:*"), "channels='room:*'", "a list of classes"),
        (lambda: socket(None), "channels=None", "a list of classes"),
        (lambda: socket({"room:*": Room}), "channels: 'room:*': must be", "subclass of Channel"),
        (lambda: socket([dict]), "channels: dict: must be", "subclass of Channel"),
        (lambda: socket([object.__new__(Room)]), "channels: <Room on ''>", "itself, Room"),
        (lambda: socket([Nameless]), "Nameless: must have a topic", 'topic="..."'),
        (lambda: socket([Room, Room]), "channels: no topic reaches Room", "the same topic"),
        (lambda: socket([Room, Other]), "channels: no topic reaches Other", "change the order"),
        (lambda: socket([Room, Lobby]), "channels: no topic reaches Lobby", "change the order"),
        (lambda: socket(connect="x"), "connect='x'", "an async function of (client)"),
        (lambda: socket(connect=plain), "connect=plain", "`async def`"),
        (lambda: socket(connect=none), "connect=none", "an async function of (client)"),
        (lambda: socket(connect=Client), "connect=Client", "`async def`"),
        (lambda: socket(origins="https://a.b"), "origins='https://a.b'", "a list of texts"),
        (lambda: socket(origins=5), "origins=5", "a list of texts"),
        (lambda: socket(origins=[5]), "origins=[5]", "a list of texts"),
        (lambda: socket(limits={}), "limits={}", "Limits(joins=50)"),
        (lambda: socket(limits={"joins": 5}), "limits={'joins': 5}", "Limits(joins=50)"),
        (lambda: socket(limits=5), "limits=5", "Limits(joins=50)"),
        *[
            (partial(socket, timeout=value), f"timeout={value!r}", "seconds above 0")
            for value in (0, -1, NAN, "5", True, None)
        ],
        (lambda: socket(when_slow=True), "when_slow=True", "'state' or 'close'"),
        (lambda: Limits(joins=True), "joins=True", "a whole number from 1"),
        (lambda: Limits(joins=1.5), "joins=1.5", "a whole number from 1"),  # type: ignore[arg-type]
        (lambda: Limits(interval=NAN), "interval=nan", "seconds above 0"),
    ],
)
def test_wrong_argument_of_a_socket_is_refused(
    call: Callable[[], Any], beginning: str, accepted: str
) -> None:
    text = refusal(call)
    assert text.startswith(beginning), text
    assert accepted in text


def test_timeout_of_a_socket_may_be_infinite() -> None:
    socket(timeout=float("inf"))


class Doorman:
    async def __call__(self, client: Client) -> None:
        """Lets everybody in."""

    async def method(self, client: Client, more: int = 1) -> None:
        """Lets everybody in."""


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def with_database(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives one more argument than the caller does."""

    @functools.wraps(function)
    async def wrapper(self: Any, payload: Any) -> Any:
        return await function(self, payload, "database")

    return wrapper


@pytest.mark.parametrize(
    "function",
    [connect, Doorman(), Doorman().method, partial(connect), logged(connect), AsyncMock()],
)
def test_connect_may_be_any_async_callable(function: Any) -> None:
    async def main() -> None:
        made = socket(connect=function)
        async with made._shared.presence.node, Browser(made) as ann:
            await ann.join("room:1")

    run(main())


# Channels.


def test_synchronous_method_is_refused() -> None:
    with pytest.raises(ConfigurationError) as caught:

        class Sync(Channel, topic="sync"):
            def join(self, payload: Any) -> None:  # type: ignore[override]
                """Is not async."""

    assert "Sync.join=" in str(caught.value)
    assert "must be `async def join(self, payload)`" in str(caught.value)
    with pytest.raises(
        ConfigurationError, match=r"Ending\.terminate=.*`async def terminate\(self,"
    ):

        class Ending(Channel):
            def terminate(self, reason: Reason) -> None:  # type: ignore[override]
                """Is not async."""

    class Base(Channel):
        @on("say")
        async def say(self, payload: Any) -> None:
            """Is what the subclass replaces."""

    with pytest.raises(ConfigurationError, match=r"Replacing\.say=None: must be `async def say"):

        class Replacing(Base):
            say = None  # type: ignore[assignment]


def test_method_with_other_arguments_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"Short\.join\(self\): must be `async def join"):

        class Short(Channel):
            async def join(self) -> None:  # type: ignore[override]
                """Takes no payload."""

    with pytest.raises(ConfigurationError, match=r"Long\.say\(self, payload, more\)"):

        class Long(Channel):
            @on("say")
            async def say(self, payload: Any, more: Any) -> None:
                """Takes too much."""

    with pytest.raises(ConfigurationError, match=r"Filtering\.hear\(self\)"):

        class Filtering(Channel):
            @intercept("said")
            async def hear(self) -> None:
                """Takes no payload."""

    with pytest.raises(ConfigurationError, match=r"Named\.say\(self, \*, payload\)"):

        class Named(Channel):
            @on("say")
            async def say(self, *, payload: Any) -> None:
                """Takes it by keyword alone."""

    with pytest.raises(ConfigurationError, match=r"Made\.__init__\(self\): must take"):

        class Made(Channel):
            def __init__(self) -> None:
                """Takes nothing."""


def test_methods_that_can_be_called_with_the_payload_are_accepted() -> None:
    async def act(more: int, payload: Any) -> Answer:
        return {"more": more}

    class Liberal(Channel, topic="room:{room}"):
        async def join(self, payload: Any = None, *more: Any, **rest: Any) -> Answer:
            return {}

        @on("static")
        @staticmethod
        async def static(payload: Any) -> Answer:
            return {"by": "static"}

        @on("class")
        @classmethod
        async def of_class(cls, payload: Any) -> Answer:
            return {"by": cls.__name__}

        @on("logged")
        @logged
        async def logged(self, payload: Any) -> Answer:
            return {"by": "logged"}

        @on("database")
        @with_database
        async def database(self, payload: Any, database: str) -> Answer:
            return {"by": database}

        partial = on("partial")(staticmethod(partial(act, 5)))
        called = on("called")(AsyncMock(return_value={"by": "mock"}))

    expected: dict[str, Answer] = {
        "static": {"by": "static"},
        "class": {"by": "Liberal"},
        "logged": {"by": "logged"},
        "database": {"by": "database"},
        "partial": {"more": 5},
        "called": {"by": "mock"},
    }

    async def main() -> None:
        made = socket([Liberal])
        async with made._shared.presence.node, Browser(made) as ann:
            room = await ann.join("room:1")
            assert {event: await room.ask(event) for event in expected} == expected

    run(main())


@pytest.mark.parametrize("mark", [on, intercept])
def test_decorator_without_parentheses_is_refused(mark: Any) -> None:
    async def say(self: Channel, payload: Any) -> None:
        """Handles nothing."""

    text = refusal(lambda: mark(say))
    assert text.startswith(
        f'@{mark.__name__}: must have an event in parentheses, as @{mark.__name__}("'
    )


@pytest.mark.parametrize("mark", [on, intercept])
@pytest.mark.parametrize("event", [None, 5, b"say", "", "phx_close", "x" * 1025])
def test_event_name_must_be_an_unreserved_string(mark: Any, event: Any) -> None:
    assert refusal(lambda: mark(event)).startswith("event=")


@pytest.mark.parametrize("event", ["presence_state", "presence_diff"])
def test_intercept_of_presence_events_is_refused(event: str) -> None:
    assert f"event={event!r}" in refusal(lambda: intercept(event))


@pytest.mark.parametrize("name", ["push", "track", "broadcast", "topic", "client", "join"])
def test_handler_that_shadows_a_channel_attribute_is_refused(name: str) -> None:
    async def handler(self: Channel, payload: Any) -> None:
        """Has a name that is taken."""

    text = refusal(lambda: type("Hiding", (Channel,), {name: on("event")(handler)}))
    assert text.startswith(f"Hiding.{name} handles 'event' and hides")


@pytest.mark.parametrize("value", [-1, True, 1.5, "5"])
def test_counts_above_must_be_a_whole_number(value: Any) -> None:
    text = refusal(lambda: type("Hall", (Channel,), {"counts_above": value}))
    assert text == f"Hall.counts_above={value!r}: must be a whole number from 0"


def test_class_that_was_broken_later_is_refused_by_the_socket() -> None:
    class Changed(Channel, topic="changed"):
        """Is changed below."""

    setattr(Changed, "join", plain)  # noqa: B010 - as a test would
    assert "Changed.join=" in refusal(lambda: socket([Changed]))


def test_abstract_class_is_refused_by_the_socket() -> None:
    class Abstract(Channel, ABC, topic="abstract"):
        @abstractmethod
        async def user(self) -> str:
            """Whom it is about."""

    assert "Abstract: must have no abstract methods" in refusal(lambda: socket([Abstract]))


# What a channel calls.


class Wrong(Channel, topic="wrong:{call}"):
    async def join(self, payload: Any) -> Answer:
        calls: dict[str, Callable[[], Any]] = {
            "spawn": lambda: self.spawn(self.work),  # type: ignore[arg-type]
            "key": lambda: self.track(5),  # type: ignore[arg-type]
            "meta": lambda: self.track("ann", []),  # type: ignore[arg-type]
            "topic": lambda: self.track("ann", topic=5),  # type: ignore[arg-type]
            "payload": lambda: self.push("event", "text"),  # type: ignore[arg-type]
            "reason": lambda: RefusedError(404),  # type: ignore[arg-type]
        }
        try:
            calls[self.params["call"]]()
        except (TypeError, ValueError) as error:
            return {"error": str(error)}
        return None

    async def work(self) -> None:
        """Is never called."""


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("spawn", "must be a coroutine, as self.spawn(self.tick())"),
        ("key", "key must be a str, not int 5"),
        ("meta", "meta must be a dict"),
        ("topic", "topic must be a str, not int 5"),
        ("payload", "payload must be a dict"),
        ("reason", "reason=404: must be a text, or a dict"),
    ],
)
def test_wrong_argument_of_a_call_in_a_channel_is_refused(call: str, words: str) -> None:
    async def main() -> None:
        made = socket([Wrong])
        async with made._shared.presence.node, Browser(made) as ann:
            assert words in (await ann.join(f"wrong:{call}")).response["error"]

    run(main())


@pytest.mark.parametrize("id", [42, b"ann", "", "x" * 1025])
def test_client_id_that_disconnect_cannot_name_is_refused(id: Any) -> None:
    client = Client()
    with pytest.raises((TypeError, ValueError), match="id must"):
        client.id = id
    with pytest.raises((TypeError, ValueError), match="id must"):
        Client(id=id)
    client.id = "user:42"
    client.id = None
