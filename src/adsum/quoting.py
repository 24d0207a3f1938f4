"""Quoting of foreign text for log lines and errors: printable, on one line, and short.

Clients and peers choose topics, events, keys of JSON objects, names, tokens and headers. Unquoted,
such a text can contain line breaks and terminal sequences that forge log lines, and fill a disk.
`quoted` shows any value in a bounded number of characters, and examines a bounded part of it.
"""

import reprlib
from collections.abc import Callable
from typing import Any

#: Characters in a result of `quoted` at most, by default.
LIMIT = 100
_ELLIPSIS = "..."
#: Bits of the largest integer shown in decimal; larger ones are described, because Python refuses
#: to convert very long ones.
_MAX_BITS = 256


def quoted(value: object, limit: int = LIMIT) -> str:
    """The repr of a value: printable, on one line, at most `limit` characters.

    Examines at most `limit` characters of a text, and a few items of a container. It calls no
    overridable method of JSON values, so a subclass of `str` cannot mislead it.

    Args:
        value: A text of a client or a peer, or any other value.
        limit: Characters of the result at most, including quotes and ellipsis; at least 10.
    """
    if isinstance(value, str):
        part = str.__getitem__(value, slice(limit))
        return _cut(str.__repr__(part), str.__len__(value) > limit, limit)
    if isinstance(value, bytes):
        start = bytes.__getitem__(value, slice(limit))
        return _cut(bytes.__repr__(start), bytes.__len__(value) > limit, limit)
    shown = _REPR.repr(value)
    return shown if len(shown) <= limit else shown[: limit - len(_ELLIPSIS)] + _ELLIPSIS


def printable(text: str, limit: int) -> str:
    """The text itself if it is printable and at most `limit` characters long; otherwise quoted."""
    if str.__len__(text) <= limit and str.isprintable(text):
        return str.__str__(text)
    return quoted(text, limit)


def described(value: object) -> str:
    """The type and the beginning of a value, for the error about a wrong type."""
    return f"{type(value).__name__} {quoted(value, 60)}"


def _cut(shown: str, is_part: bool, limit: int) -> str:
    """The quoted text, or its beginning with the closing quote and an ellipsis."""
    if not is_part and len(shown) <= limit:
        return shown
    quote = shown[-1]
    return shown[: limit - 1 - len(_ELLIPSIS)].removesuffix(quote) + quote + _ELLIPSIS


class _Repr(reprlib.Repr):
    """Like `reprlib.Repr`, but every part of the result is printable and short."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self._containers: tuple[tuple[type, Callable[[Any, int], str]], ...] = (
            (dict, self.repr_dict),
            (list, self.repr_list),
            (tuple, self.repr_tuple),
            (set, self.repr_set),
            (frozenset, self.repr_frozenset),
        )

    def repr1(self, x: object, level: int) -> str:
        if isinstance(x, str | bytes):
            return quoted(x, 50)
        if isinstance(x, int) and not isinstance(x, bool):
            bits = int.bit_length(x)
            return int.__repr__(x) if bits <= _MAX_BITS else f"<int of {bits} bits>"
        if type(x) in _PLAIN:
            return repr(x)
        for kind, show in self._containers:
            if isinstance(x, kind):
                return show(x, level)
        try:
            return printable(repr(x), LIMIT)
        except Exception:  # of the application
            return f"<{type(x).__name__[:50]} object>"


_PLAIN = frozenset({bool, float, complex, type(None)})
_REPR = _Repr()
