"""Foreign text in log lines and error texts: printable, on one line, and short.

Clients and peers choose topics, events, keys of JSON objects, names, tokens and headers. Raw, such
a text can contain line breaks and terminal sequences that forge log lines, and fill a disk.
`quoted` shows any value in a bounded number of characters, and looks at a bounded part of it.
"""

import reprlib

#: Characters that `quoted` returns at most, unless told otherwise.
LIMIT = 100
_ELLIPSIS = "..."
#: Integers with more bits than this are described; a longer one may have no decimal form at all.
_MAX_BITS = 256


def quoted(value: object, limit: int = LIMIT) -> str:
    """The repr of a value: printable, on one line, at most `limit` characters.

    Looks at no more than `limit` characters of a text, and a few items of a container. Calls no
    method of the value's class, if that is not a built-in one.

    Args:
        value: A text of a client or a peer, or any other value.
        limit: The most characters of the result, quotes and ellipsis included; at least 10.
    """
    if isinstance(value, str):
        return _cut(str.__repr__(str.__getitem__(value, slice(limit))), len(value) > limit, limit)
    if isinstance(value, bytes):
        part = bytes.__getitem__(value, slice(limit))
        return _cut(bytes.__repr__(part), len(value) > limit, limit)
    shown = _REPR.repr(value)
    return shown if len(shown) <= limit else shown[: limit - len(_ELLIPSIS)] + _ELLIPSIS


def printable(text: str, limit: int) -> str:
    """A text as it is, if it is printable and at most `limit` characters; otherwise quoted."""
    return text if len(text) <= limit and text.isprintable() else quoted(text, limit)


def _cut(shown: str, is_part: bool, limit: int) -> str:
    """A quoted text, or its beginning, closed with its own quote and an ellipsis."""
    if not is_part and len(shown) <= limit:
        return shown
    quote = shown[-1]
    return shown[: limit - 1 - len(_ELLIPSIS)].removesuffix(quote) + quote + _ELLIPSIS


class _Repr(reprlib.Repr):
    """As the standard one, but it calls no `repr` of an application's class."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3

    def repr1(self, x: object, level: int) -> str:
        if isinstance(x, str | bytes):
            return quoted(x, 50)
        if isinstance(x, int) and not isinstance(x, bool):
            bits = int.bit_length(x)
            return int.__repr__(x) if bits <= _MAX_BITS else f"<int of {bits} bits>"
        if type(x) in _PLAIN:
            return repr(x)
        if type(x) in _CONTAINERS:
            return super().repr1(x, level)
        return f"<{type(x).__name__[:50]} object>"


_PLAIN = frozenset({bool, float, complex, type(None)})
_CONTAINERS = frozenset({dict, list, tuple, set, frozenset})
_REPR = _Repr()
