"""The number of items in all containers that can be reached from an object: bounds of memory."""

import gc
from collections import deque
from typing import Any

_CONTAINERS = (dict, list, set, frozenset, deque, tuple)


def containers(root: object) -> dict[int, Any]:
    """All containers that an object of this project holds, by identity, however deep."""
    found: dict[int, Any] = {}
    seen: set[int] = set()
    waiting: list[Any] = [root]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or not _is_state(thing):
            continue
        seen.add(id(thing))
        if isinstance(thing, _CONTAINERS):
            found[id(thing)] = thing
        waiting.extend(gc.get_referents(thing))
    return found


def longest_container(root: object) -> tuple[int, str]:
    """How many items the longest container has, and what its first items look like."""
    found = containers(root).values()
    longest = max(found, key=len)
    return len(longest), repr(longest)[:200]


def total_items(root: object) -> int:
    """How many items all containers hold together."""
    return sum(map(len, containers(root).values()))


def _is_state(thing: object) -> bool:
    return isinstance(thing, _CONTAINERS) or type(thing).__module__.startswith("adsum.")
