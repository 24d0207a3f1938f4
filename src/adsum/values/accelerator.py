"""The accelerator of JSON: msgspec, if it is installed, as by the extra ``adsum[fast]``.

It changes no result. msgspec decodes each text that it accepts to the same value as the standard
module, types included. It refuses some texts that the standard module accepts, such as those with
lone surrogates or ``1e400``, so each refused text is decoded by the standard module, which decides
and words the error. orjson does not fit: it decodes integers beyond 64 bits as floats.

Texts are replicated to nodes without an accelerator and compared there, so they are equal byte by
byte. msgspec writes floats, non-ASCII characters and DEL differently, so it encodes only objects
without these.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

try:
    import msgspec
except ImportError:
    msgspec = None  # type: ignore[assignment]  # checkers know the module only


class Accelerator(NamedTuple):
    """The functions of an accelerator.

    Attributes:
        decode: Decodes a text; it may refuse texts that are JSON.
        encode: Encodes a value as UTF-8; it may refuse values that are JSON.
        refusals: The errors of both for a refused argument.
    """

    decode: Callable[[str], Any]
    encode: Callable[[object], bytes]
    refusals: tuple[type[Exception], ...]


def installed() -> Accelerator | None:
    """The accelerator that is installed, or None."""
    if msgspec is None:
        return None
    refusals = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)
    return Accelerator(msgspec.json.Decoder().decode, msgspec.json.Encoder().encode, refusals)
