"""Argument checks of the public API: a wrong argument raises at the call that passed it.

An argument that is stored unchecked fails later and elsewhere: at the first client, in another
task, or never, when a text matches nothing. So every public constructor and call checks its
arguments first, and the error names the argument, its value and the accepted values.
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

#: Decorators around one function that are unwrapped at most.
_MAX_WRAPPERS = 100


def refuse(field: str, value: object, accepted: str) -> NoReturn:
    """Raise the error for a wrong argument.

    Raises:
        ConfigurationError: Always.
    """
    raise ConfigurationError(f"{field}={named(value)}: must be {accepted}")


def named(value: object) -> str:
    """The name of a function or class, or any other value `quoted`."""
    if inspect.isroutine(value) or inspect.isclass(value):
        return printable(value.__qualname__, LIMIT)
    return quoted(value)


def instance(field: str, value: object, kind: type[T], accepted: str) -> T:
    """Check that an argument is an instance of a class.

    Raises:
        ConfigurationError: It is not.
    """
    if not isinstance(value, kind):
        refuse(field, value, accepted)
    return value


def whole(field: str, value: object, least: int) -> int:
    """Check that an argument is a whole number, and at least `least`.

    Raises:
        ConfigurationError: It is not; a bool is no number.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        refuse(field, value, f"a whole number from {least}")
    return value


def whole_up_to(field: str, value: object, least: int, most: int) -> int:
    """Check that an argument is a whole number from `least` to `most`.

    Raises:
        ConfigurationError: It is not; a bool is no number.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        refuse(field, value, f"a whole number from {least} to {most:,}")
    return value


def flag(field: str, value: object) -> bool:
    """Check that an argument is True or False, not a text such as "false".

    Raises:
        ConfigurationError: It is not.
    """
    return instance(field, value, bool, "True or False")


def is_number(value: object) -> bool:
    """Whether a value is a usable number: an int or float, not a bool or NaN; may be infinite.

    A whole number that no float can hold is not usable either: all numbers are used as floats.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return not math.isnan(value)
    except OverflowError:
        return False


def seconds_above_zero(field: str, value: Any) -> float:
    """Check a duration in seconds; it may be infinite.

    Raises:
        ConfigurationError: It is not a number, or not above zero.
    """
    if not is_number(value) or value <= 0:
        refuse(field, value, "a number of seconds above 0")
    return float(value)


def seconds_from_zero(field: str, value: Any) -> float:
    """Check a time to wait in seconds; it may be 0 or infinite.

    Raises:
        ConfigurationError: It is not a number, or negative.
    """
    if not is_number(value) or value < 0:
        refuse(field, value, "a number of seconds, 0 or more")
    return float(value)


def seconds_up_to(field: str, value: Any, most: float) -> float:
    """Check a duration in seconds, from 0 to `most`.

    Raises:
        ConfigurationError: It is not a number, or outside of that range.
    """
    if type(value) is float and 0 <= value <= most:
        return value  # the fast path, for nearly every value
    if not is_number(value) or not 0 <= value <= most:
        refuse(field, value, f"a number of seconds from 0 to {most:g}")
    return float(value)


def seconds_within(field: str, value: Any, least: float, most: float) -> float:
    """Check a duration in seconds, from `least` to `most`.

    Raises:
        ConfigurationError: It is not a number, or outside of that range.
    """
    if not is_number(value) or not least <= value <= most:
        refuse(field, value, f"a number of seconds from {least:g} to {most:,.0f}")
    return float(value)


def async_function(field: str, function: object, *arguments: str) -> None:
    """Check that a function can be called with these arguments, and its result awaited.

    Raises:
        ConfigurationError: It cannot.
    """
    accepted = f"an async function of ({', '.join(arguments)})"
    if not callable(function) or not is_async(function):
        refuse(field, function, f"{accepted}; write it as `async def`")
    if not takes(function, len(arguments)):
        refuse(field, function, accepted)


def is_async(function: object) -> bool:
    """Whether calling a function returns an awaitable, as far as that is known without a call.

    Partial functions, static and class methods, decorated functions (by `__wrapped__`, which
    `functools.wraps` sets) and objects with an async `__call__` are unwrapped to the function that
    they call.
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
    """Whether an object has an async `__call__`; False for a class, whose call makes an object."""
    call = None if isinstance(function, type) else getattr(type(function), "__call__", None)  # noqa: B004
    return asyncio.iscoroutinefunction(call)


def takes(function: Callable[..., object], count: int) -> bool:
    """Whether a function accepts `count` positional arguments.

    For a wrapper, its own signature counts and not the wrapped one: it may add or remove arguments.
    A function without a signature, such as some written in C, is assumed to accept any arguments.
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
    """The parameters of a function in source form, without types: ``(self, payload)``."""
    signature = inspect.signature(function, follow_wrapped=False)
    bare = [one.replace(annotation=one.empty) for one in signature.parameters.values()]
    return printable(str(inspect.Signature(bare)), LIMIT)
