"""The presences that are measured with: their topics, keys and metas."""

from collections.abc import Iterator
from typing import Any

#: Over how many topics presences are spread, unless all are on one.
TOPICS = 1_000

#: Spreads consecutive numbers over 32 bits (Knuth's multiplicative hash), so that what is measured
#: is not the compression of a sequence.
_MIX = 2_654_435_761

DESCRIPTION = (
    "Keys look like `user:9e3779b1`, topics like `room:271`, metas like "
    '`{"device":"phone","name":"User 9e3779b1","online_at":1700031153}` (64 bytes)'
)


def key(number: int) -> str:
    """Who a user is."""
    return f"user:{number * _MIX & 0xFFFFFFFF:08x}"


def meta(number: int) -> dict[str, Any]:
    """What one user carries; different for each, so nothing is shared by accident."""
    mixed = number * _MIX & 0xFFFFFFFF
    seconds = 1_700_000_000 + mixed % 86_400
    return {"device": "phone", "name": f"User {mixed:08x}", "online_at": seconds}


def presences(
    count: int, *, topics: int = TOPICS, first: int = 0
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Topic, key and meta of so many presences."""
    for number in range(first, first + count):
        yield f"room:{number % topics}", key(number), meta(number)
