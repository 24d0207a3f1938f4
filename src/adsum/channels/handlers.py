"""Decorators that mark the methods of a channel: handlers of events, and filters of broadcasts."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from adsum.arguments import is_async, named, parameters, refuse, takes
from adsum.errors import ConfigurationError
from adsum.values.limits import MAX_NAME

from .wire.frames import is_reserved

#: Return value of a handler: a JSON object, bytes, or None for no reply.
Answer = Mapping[str, Any] | bytes | None
_H = TypeVar("_H", bound=Callable[..., Awaitable[Answer]])

_HANDLED, _INTERCEPTED = "_adsum_on", "_adsum_intercept"


def on(event: str) -> Callable[[_H], _H]:
    """Mark a method of a `Channel` as the handler of an event from the client.

    The method is called with the payload, any JSON value or bytes. It returns the reply, a dict or
    bytes, which is sent with status ``ok``; None sends no reply. Raising `RefusedError` replies
    with status ``error``, and the channel goes on. Any other exception ends the channel.

    Args:
        event: The event name, as in ``channel.push(event, payload)`` of phoenix.js.

    Raises:
        ConfigurationError: The event name is reserved or not valid, the method is not async, or
            the parentheses are missing: ``@on("event")``.
    """
    return _marked("on", _HANDLED, event)


def intercept(event: str) -> Callable[[_H], _H]:
    """Mark a method of a `Channel` as the filter of a broadcast, run before it is sent.

    The method is called with the payload and returns the payload to send to this client, or None
    to send nothing. Broadcasts of other events are sent to all clients without a call.

    Raises:
        ConfigurationError: The event name is reserved or not valid, the method is not async, or
            the parentheses are missing: ``@intercept("event")``. Presences are not broadcasts, so
            their events are refused too.
    """
    return _marked("intercept", _INTERCEPTED, event)


def handlers_of(cls: type) -> dict[str, str]:
    """The names of the methods that `on` marks, by event; inherited ones may be replaced."""
    return _methods(cls, _HANDLED)


def intercepts_of(cls: type) -> dict[str, str]:
    """The names of the methods that `intercept` marks, by event, as `handlers_of`."""
    return _methods(cls, _INTERCEPTED)


def check_method(channel: type, name: str, argument: str) -> None:
    """Check that a method of a channel class is async and takes one argument besides ``self``.

    Raises:
        ConfigurationError: It is not or does not.
    """
    accepted = f"`async def {name}(self, {argument})`"
    raw: Any = inspect.getattr_static(channel, name)
    if not is_async(raw):
        refuse(f"{channel.__name__}.{name}", raw, accepted)
    bound = raw.__get__(object(), channel) if hasattr(type(raw), "__get__") else raw
    if not takes(bound, 1):
        shown = parameters(raw if inspect.isfunction(raw) else bound)
        raise ConfigurationError(f"{channel.__name__}.{name}{shown}: must be {accepted}")


def _marked(name: str, kind: str, event: Any) -> Callable[[_H], _H]:
    if callable(event):
        raise ConfigurationError(
            f'@{name}: must have an event in parentheses, as @{name}("say"), above {named(event)}'
        )
    if not isinstance(event, str) or not event or event.startswith("phx_"):
        refuse("event", event, "a str that is not empty and does not begin with 'phx_'")
    if len(event) > MAX_NAME:
        refuse("event", event, f"a str of at most {MAX_NAME} characters")
    if kind == _INTERCEPTED and is_reserved(event):
        refuse("event", event, "the event of a broadcast; presences are not intercepted")

    def mark(method: _H) -> _H:
        if not is_async(method):
            raise ConfigurationError(
                f"@{name}({event!r}): {named(method)}: must be `async def method(self, payload)`"
            )
        setattr(method, kind, [*getattr(method, kind, ()), event])
        return method

    return mark


def _methods(cls: type, kind: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        own: dict[str, str] = {}
        for name, method in vars(base).items():
            for event in getattr(method, kind, ()):
                if event in own:
                    raise ConfigurationError(
                        f"{base.__name__}: the event {event!r} has two methods"
                    )
                own[event] = name
        found.update(own)
    return found
