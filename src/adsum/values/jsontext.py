"""JSON values as text, for the metas of presences and the payloads of messages.

Objects of callers and peers enter the state only through `encode_object` and `check_object`. A text
that has passed one of them is valid, finite, ASCII-only JSON of a bounded size, so it can be joined
into larger texts without being parsed again.

Invariant: an accelerator, if there is one, changes no result and no error of a function here; see
`accelerator`.
"""

import json
import math
from collections.abc import Callable
from typing import Any, NoReturn

from adsum.quoting import described, printable, quoted

from .accelerator import Accelerator, installed

#: Levels of nesting in an object, at most.
MAX_DEPTH = 32
#: Characters in an error, at most, of a path and of one key in it: clients and peers choose keys.
_MAX_PATH, _MAX_STEP = 200, 40

_SCALARS = frozenset({str, int, bool, type(None)})
_SEPARATORS = (",", ":")


def _make_dump() -> Callable[[object], str]:
    """Build the standard encoder, once: building it for each call costs as much as encoding."""
    make_encoder = getattr(json.encoder, "c_make_encoder", None)
    if make_encoder is None:  # an interpreter without the C accelerator
        return json.JSONEncoder(separators=_SEPARATORS, allow_nan=False).encode
    default = json.JSONEncoder().default
    quote = json.encoder.encode_basestring_ascii
    encode = make_encoder(None, default, quote, None, ":", ",", False, False, False)
    return lambda value: "".join(encode(value, 0))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)

#: Encodes a value that is known to be valid JSON as compact ASCII text.
dump: Callable[[object], str] = _make_dump()
#: Encodes a string as a JSON string, in ASCII.
quote: Callable[[str], str] = json.encoder.encode_basestring_ascii
_scan_once: Callable[[str, int], tuple[Any, int]] = vars(_DECODER)["scan_once"]  # not in its types


def _scan(text: str) -> Any:
    """Decode a text that has no whitespace at its ends; several calls fewer than the decoder."""
    value, end = _scan_once(text, 0)
    if end != len(text):
        raise ValueError
    return value


# The fast ways: each decodes or encodes nearly all arguments, and refuses the others. Set by
# `accelerate`.
_decode: Callable[[str], Any]
_refusals: tuple[type[Exception], ...]
_dump_flat: Callable[[dict[str, Any]], str]


def accelerate(accelerator: Accelerator | None) -> None:
    """Use an accelerator from now on, or the standard module alone. For tests."""
    global _decode, _refusals, _dump_flat
    if accelerator is None:
        _decode, _refusals, _dump_flat = _scan, (StopIteration, ValueError), dump
        return
    _decode, encode, _refusals = accelerator

    def dump_flat(value: dict[str, Any]) -> str:
        try:
            text = encode(value).decode("ascii")
        except _refusals:
            return dump(value)
        return dump(value) if "\x7f" in text else text

    _dump_flat = dump_flat


accelerate(installed())


def load(text: str) -> Any:
    """Decode a JSON text; refuses NaN and infinities, which the standard module accepts.

    Raises:
        ValueError: The text is not JSON.
        RecursionError: It is nested too deeply for the interpreter.
    """
    try:
        return _decode(text)
    except _refusals:
        return _DECODER.decode(text)


def check_object(text: object, field: str, limit: int) -> str:
    """Check a received text: it must be a JSON object that `encode_object` could have made.

    Args:
        text: The text.
        field: The name of the value in errors, as ``meta``.
        limit: The most characters that it may have.

    Returns:
        The text.

    Raises:
        ValueError: It is no text, not a JSON object, too long, too deep, or not finite.
    """
    if type(text) is not str or len(text) > limit or not text.isascii():
        raise ValueError(f"{field} must be a text of at most {limit} ASCII characters")
    value, end = _decode_beginning(text)
    if end != len(text) or type(value) is not dict:
        raise ValueError(f"{field} is not a JSON object")
    if not value and text != "{}":
        raise ValueError(f"{field} is an empty object with whitespace")
    if not _is_flat(value) and not _is_valid(value, 0):
        _check(value, field, 0)
    return text


def _decode_beginning(text: str) -> tuple[Any, int]:
    """Decode the value with which a text begins; returns the value and its end."""
    if text[:1] == "{" and text[-1:] == "}":  # neither end is whitespace, so a fast way may try
        try:
            return _decode(text), len(text)
        except _refusals:
            pass
    return _DECODER.raw_decode(text)


def encode_object(value: object, field: str, limit: int, remedy: str = "") -> str:
    """Check and encode a JSON object as compact ASCII text.

    Args:
        value: A dict of JSON values with string keys.
        field: The name of the value in errors, as ``meta``.
        limit: The most characters that the text may have.
        remedy: The end of the error for a longer text.

    Raises:
        TypeError: A part of it is not a JSON value; the error names its path.
        ValueError: A number is not finite, the object is nested too deeply, or the text is too
            long.
    """
    if type(value) is dict and _is_flat(value):
        text = _dump_flat(value)
    else:
        if not isinstance(value, dict):
            raise TypeError(f"{field} must be a dict (a JSON object), not {described(value)}")
        if not _is_valid(value, 0):
            _check(value, field, 0)
        text = dump(value)
    if len(text) > limit:
        raise ValueError(f"{field} is {len(text)} bytes of JSON: must be at most {limit}{remedy}")
    return text


def _is_flat(value: dict[Any, Any]) -> bool:
    """Whether all keys are strings and all values scalars, as in nearly every meta."""
    for key, item in value.items():  # a loop, because it costs half as much as all()
        if type(key) is not str or type(item) not in _SCALARS:
            return False
    return True


def _is_valid(value: object, depth: int) -> bool:
    """Whether `_check` accepts a value; several times as fast, because it builds no paths."""
    if type(value) in _SCALARS:
        return depth <= MAX_DEPTH
    if depth > MAX_DEPTH:
        return False
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str) or not _is_valid(item, depth + 1):
                return False
        return True
    if isinstance(value, list):
        return all(_is_valid(item, depth + 1) for item in value)
    return math.isfinite(value) if isinstance(value, float) else isinstance(value, str | int)


def _check(value: object, path: str, depth: int) -> None:
    """Raise the error for the first invalid part of a value, if there is one."""
    if depth > MAX_DEPTH:
        raise ValueError(f"{path} is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{path} has the key {quoted(key)}; JSON keys must be str")
            _check(item, _step(path, f".{printable(key, _MAX_STEP)}"), depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, _step(path, f"[{index}]"), depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{path} is {value!r}; JSON numbers must be finite")
    elif value is not None and not isinstance(value, str | int):
        raise TypeError(
            f"{path} is {described(value)}: must be a str, int, float, bool, None, list or dict"
        )


def _step(path: str, step: str) -> str:
    """Append a step to a path, or an ellipsis if the path would be longer than `_MAX_PATH`."""
    if len(path) + len(step) <= _MAX_PATH:
        return path + step
    return path if path.endswith("...") else f"{path}..."
