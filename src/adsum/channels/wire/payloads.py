"""Payloads of the server: validated, and encoded once however many clients receive them. Pure."""

from adsum.values.jsontext import encode_object

from .frames import Encoded

#: Characters of JSON text that a push or a reply to one client may have; bytes of a binary one.
MAX_PUSH = 1024 * 1024


def encode(payload: object, limit: int = MAX_PUSH, field: str = "payload") -> Encoded:
    """Encode a payload for a frame.

    Args:
        payload: A JSON object or bytes.
        limit: Most characters of JSON text, or bytes.
        field: Name of the payload in errors.

    Raises:
        TypeError: It is neither a JSON object nor bytes.
        ValueError: It is not finite, too deep or too large.
    """
    if isinstance(payload, bytes):
        if len(payload) > limit:
            raise ValueError(f"{field} is {len(payload)} bytes: must be at most {limit}")
        return payload
    return encode_object(payload, field, limit)
