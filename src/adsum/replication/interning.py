"""Interning of topics with bounded memory: equal topics of many entries are one string object.

Clients choose topics, so sharing must end. An interned string is immortal on CPython 3.12, and a
plain `str` has no weak references. A table of recent topics is bounded instead: when it is full, it
is dropped as a whole, and later entries share a new string. Entries keep the strings they have.
"""

#: Characters in the table, at most; each topic counts with its `OVERHEAD`.
CAPACITY = 2 * 1024 * 1024
#: Bytes that a topic costs in the table beside its characters.
OVERHEAD = 128

_recent: dict[str, str] = {}
_room = CAPACITY

#: Returns the shared string of a recent topic that was given to `share`, or None.
known = _recent.get


def share(topic: str) -> str:
    """Return the shared string that is equal to a topic; adds it if the table has none."""
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
