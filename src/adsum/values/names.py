"""Names: topics, keys, events, and the names of nodes and clusters.

A name is a text of 1 to a number of characters that UTF-8 can carry. This is the only check of
names: of those from callers, in settings, in frames of clients, in hellos and messages of peers.
"""

from typing import TypeGuard

from adsum.quoting import described, quoted
from adsum.values.limits import MAX_NAME

#: Topics that begin with this are adsum's own.
RESERVED = "\0"

#: A topic and a key.
Place = tuple[str, str]


def is_name(value: object, limit: int) -> TypeGuard[str]:
    """Whether a value is a text of 1 to `limit` characters without lone surrogates."""
    if not isinstance(value, str) or not 0 < len(value) <= limit:
        return False
    return value.isascii() or is_unicode(value)


def is_unicode(value: str) -> bool:
    """Whether UTF-8 can carry a text: JSON can carry lone surrogates, and UTF-8 cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def checked_name(value: object, field: str, limit: int) -> str:
    """Check a topic, key or event: it must be a string of 1 to `limit` characters.

    Returns:
        The name as a plain `str`.

    Raises:
        TypeError: It is not a string.
        ValueError: It is empty, too long, or has characters that UTF-8 cannot carry.
    """
    if type(value) is str and value.isascii() and 0 < len(value) <= limit:
        return value  # the fast path, for nearly every name
    if not isinstance(value, str):
        raise TypeError(f"{field} must be a str, not {described(value)}")
    if not 0 < len(value) <= limit:
        shown = quoted(value, 60)
        raise ValueError(f"{field} must have 1 to {limit} characters, not {len(value)}: {shown}")
    if not is_unicode(value):
        raise ValueError(f"{field} {quoted(value)} has a lone surrogate, no Unicode text")
    return str.__str__(value)  # a plain str, if it was of a subclass


def checked_topic(value: object) -> str:
    """Check a topic of an application as `checked_name` does; adsum's own topics are refused.

    Raises:
        TypeError: It is not a string.
        ValueError: It is not a name, or it begins with NUL.
    """
    topic = checked_name(value, "topic", MAX_NAME)
    if topic[0] == RESERVED:
        raise ValueError(f"topic {quoted(topic, 40)} must not begin with NUL, which adsum reserves")
    return topic


def checked_place(topic: object, key: object) -> Place:
    """Check a topic of an application, as `checked_topic` does, and a key on it.

    Raises:
        TypeError: One is not a string.
        ValueError: One is not a name, or the topic begins with NUL.
    """
    if (
        type(topic) is type(key) is str
        and topic.isascii()
        and key.isascii()
        and topic[:1] > RESERVED
        and len(topic) <= MAX_NAME
        and 0 < len(key) <= MAX_NAME
    ):
        return topic, key  # the fast path, for nearly every place
    return checked_topic(topic), checked_name(key, "key", MAX_NAME)


def checked_prefix(value: object, field: str, limit: int) -> str:
    """Check the beginning of a name as `checked_name` does; it may be empty."""
    return "" if value == "" else checked_name(value, field, limit)
