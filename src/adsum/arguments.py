"""Checks of what an application gives: a wrong argument is refused at the call that gave it.

An argument that is stored unchecked fails later and elsewhere: at the first client, in another
task, or never, when a text matches nothing. So every public constructor and call checks its
arguments first, and the error names the argument, its value and what is accepted.
"""

import asyncio
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from adsum.errors import ConfigurationError
from adsum.quoting import LIMIT, printable, quoted

T = TypeVar("T")

#: Decorators around one function that are looked through.
_MAX_WRAPPERS = 100


def refuse(field: str, value: object, accepted: str) -> NoReturn:
    """Raise the error for a wrong argument.

    Raises:
        ConfigurationError: Always.
    """
    raise ConfigurationError(f"{field}={named(value)}: must be {accepted}")


def named(value: object) -> str:
    """A function or class by its name, anything else as `quoted`."""
    if inspect.isroutine(value) or inspect.isclass(value):
        return printable(value.__qualname__, LIMIT)
    return quoted(value)


def instance(field: str, value: object, kind: type[T], accepted: str) -> T:
    """An argument of a certain class.

    Raises:
        ConfigurationError: It is something else.
    """
    if not isinstance(value, kind):
        refuse(field, value, accepted)
    return value


def whole(field: str, value: object, least: int) -> int:
    """A whole number from some least one.

    Raises:
        ConfigurationError: It is something else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        refuse(field, value, f"a whole number from {least}")
    return value


def flag(field: str, value: object) -> bool:
    """True or False, and no text that only looks like one.

    Raises:
        ConfigurationError: It is something else.
    """
    return instance(field, value, bool, "True or False")


def is_number(value: object) -> bool:
    """Whether a value is a number of real life: neither a bool nor NaN; it may be infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def seconds_above_zero(field: str, value: Any) -> float:
    """A duration; it may be infinite.

    Raises:
        ConfigurationError: It is not a number, or not above zero.
    """
    if not is_number(value) or value <= 0:
        refuse(field, value, "a number of seconds above 0")
    return float(value)


def seconds_from_zero(field: str, value: Any) -> float:
    """A time to wait; it may be infinite.

    Raises:
        ConfigurationError: It is not a number, or negative.
    """
    if not is_number(value) or value < 0:
        refuse(field, value, "a number of seconds from 0")
    return float(value)


def async_function(field: str, function: object, *arguments: str) -> None:
    """Check that something can be called with these arguments, and awaited.

    Raises:
        ConfigurationError: It cannot.
    """
    accepted = f"an async function of ({', '.join(arguments)})"
    if not callable(function) or not is_async(function):
        refuse(field, function, f"{accepted}; write it as `async def`")
    if not takes(function, len(arguments)):
        refuse(field, function, accepted)


def is_async(function: object) -> bool:
    """Whether calling it gives something to await, as far as can be known without a call.

    Partial functions, static and class methods, decorated functions (by `__wrapped__`, as
    `functools.wraps` leaves it) and objects with an async `__call__` count like the function that
    they lead to.
    """
    for _ in range(_MAX_WRAPPERS):
        if isinstance(function, functools.partial | functools.partialmethod):
            function = function.func
        elif asyncio.iscoroutinefunction(function) or _is_called_async(function):
            return True
        elif (wrapped := getattr(function, "__wrapped__", None)) is not None:
            function = wrapped
        else:
            return False
    return False


def _is_called_async(function: object) -> bool:
    """Whether an object has an async `__call__`; the call of a class makes an instance."""
    call = None if isinstance(function, type) else getattr(type(function), "__call__", None)  # noqa: B004
    return asyncio.iscoroutinefunction(call)


def takes(function: Callable[..., object], count: int) -> bool:
    """Whether a function can be called with so many positional arguments.

    A wrapper is asked itself, not what it wraps: it may add or remove arguments. A function that
    has no signature, as some that are written in C, is taken to accept anything.
    """
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def parameters(function: Callable[..., object]) -> str:
    """The parameters of a function as they are written, without types: ``(self, payload)``."""
    signature = inspect.signature(function, follow_wrapped=False)
    bare = [one.replace(annotation=one.empty) for one in signature.parameters.values()]
    return printable(str(inspect.Signature(bare)), LIMIT)
