"""The operations of python-socketio that other processes send: their form, checked.

python-socketio applies an operation as it is. A wrong one raises inside of it, which it logs with a
traceback each time, or breaks its rooms and callbacks. So each field that it reads is checked here
first. This file imports nothing of python-socketio.
"""

import base64
from collections.abc import Callable, Mapping
from typing import Any

from adsum.quoting import described, quoted

#: Rebuilds data with bytes from its structure and its attachments.
Reconstruct = Callable[[Any, Mapping[int, bytes]], Any]


class _Attachments(dict[int, bytes]):
    """Attachments by number, each used once: python-socketio sends a client each use in full."""

    def __getitem__(self, number: int) -> bytes:
        return self.pop(number)


def checked_operation(message: object, reconstruct: Reconstruct) -> dict[str, Any]:
    """An operation whose method and fields have the types that python-socketio expects.

    Args:
        message: The decoded JSON.
        reconstruct: Puts attachments into data.

    Returns:
        The operation; its data and the arguments of its answer contain bytes again.

    Raises:
        TypeError: It is no JSON object, or a field has a wrong type.
        ValueError: The method is unknown, or an attachment is not base64.
        LookupError: An attachment is absent, or used twice.
    """
    if not isinstance(message, dict):
        raise TypeError(f"an operation must be an object, not {described(message)}")
    method = message.get("method")
    if not isinstance(method, str) or method not in _FIELDS:
        raise ValueError(f"method {quoted(method)}: must be one of {', '.join(_FIELDS)}")
    for name, is_valid in _FIELDS[method].items():
        if not is_valid(message.get(name)):
            raise TypeError(f"{method}: {name} must not be {described(message.get(name))}")
    part = _BINARY.get(method)
    if part is None or not message.get("binary"):
        return message
    return {**message, part: _with_bytes(message[part], reconstruct), "binary": False}


def _with_bytes(parts: object, reconstruct: Reconstruct) -> list[Any]:
    """Data from its structure and its attachments in base64."""
    if not isinstance(parts, list) or not parts or not isinstance(parts[0], list):
        raise TypeError("binary data must be a list that begins with a list")
    structure, *encoded = parts
    attachments = {at: base64.b64decode(text) for at, text in enumerate(encoded)}
    found: list[Any] = reconstruct(structure, _Attachments(attachments))
    return found


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _is_namespace(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_room(value: object) -> bool:
    """A room has any name that can be the key of a dict; None is all clients of a namespace."""
    return isinstance(value, str | int | float)


def _is_target(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and all(map(_is_room, value))
    return value is None or _is_room(value)


def _are_skipped(value: object) -> bool:
    return value is None or isinstance(value, str | list)


def _is_number(value: object) -> bool:
    """The number of a callback: python-socketio keeps the counter of them as number 0."""
    return type(value) is int and value > 0


def _is_callback(value: object) -> bool:
    if value is None:
        return True
    if not isinstance(value, list) or len(value) != 3:
        return False
    room, namespace, number = value
    return _is_room(room) and _is_text(namespace) and _is_number(number)


_OF_CLIENT: dict[str, Callable[[object], bool]] = {"sid": _is_text, "namespace": _is_namespace}
#: The fields of each method, with their checks. A field that is absent counts as None.
_FIELDS: dict[str, dict[str, Callable[[object], bool]]] = {
    "emit": {
        "event": _is_text,
        "data": _is_list,
        "namespace": _is_namespace,
        "room": _is_target,
        "skip_sid": _are_skipped,
        "callback": _is_callback,
        "host_id": _is_text,
    },
    "callback": {"host_id": _is_text, "sid": _is_room, "id": _is_number, "args": _is_list},
    "disconnect": _OF_CLIENT,
    "enter_room": {**_OF_CLIENT, "room": _is_room},
    "leave_room": {**_OF_CLIENT, "room": _is_room},
    "close_room": {"namespace": _is_namespace, "room": _is_room},
}
#: The field of a method that may contain attachments.
_BINARY = {"emit": "data", "callback": "args"}
