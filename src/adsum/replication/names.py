"""Topics as shared strings: equal topics of many entries are one object.

Clients choose topics, so sharing must end. An interned string is immortal on CPython 3.12, and a
plain `str` has no weak references. A table of recent topics is bounded instead: when it is full, it
is dropped as a whole, and later entries share a new string. Entries keep the strings they have.
"""

#: Characters in the table, each topic counted with `OVERHEAD`.
CAPACITY = 2 * 1024 * 1024
#: Bytes that a topic costs in the table beside its characters.
OVERHEAD = 128

_recent: dict[str, str] = {}
_room = CAPACITY

#: The shared string of a recent topic, or None. It is one that `share` was given.
known = _recent.get


def share(topic: str) -> str:
    """The shared string that equals a topic."""
    global _room
    held = _recent.get(topic)
    if held is not None:
        return held
    _room -= len(topic) + OVERHEAD
    if _room < 0:
        _recent.clear()
        _room = CAPACITY - len(topic) - OVERHEAD
    _recent[topic] = topic
    return topic
