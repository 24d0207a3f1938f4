"""One version of one presence, as a plain tuple, and how to read it.

Plain tuples of strings and numbers, because there are hundreds of thousands of them: the garbage
collector stops visiting such a tuple at its first look, while an instance of a class, a named
tuple included, is visited for as long as it lives. Read them by position with the names below, as
``entry[KEY]``. An entry is never altered: an update makes a new one.
"""

from typing import Final

#: (version, id, topic, key, meta, previous, name, incarnation)
Entry = tuple[int, int, str, str, str, int | None, str, int]
#: The end of a presence, a tombstone: (version, id)
Removal = tuple[int, int]
Change = Entry | Removal
#: What an observer sees of a change: the value before (None: it joins) and after (None: it leaves).
Transition = tuple[Entry | None, Entry | None]
#: What names a presence for its whole life: the name and incarnation of its replica, and its id.
Identity = tuple[str, int, int]

#: The version of this value, or of the removal: each change of a replica takes the next number.
VERSION: Final = 0
#: The version at which the presence began.
ID: Final = 1
#: What the presence is grouped under.
TOPIC: Final = 2
#: Who is present.
KEY: Final = 3
#: A JSON object as text: what the wire and the browsers take, and what nobody can alter.
META: Final = 4
#: The version of the value that this one replaced, or None.
PREVIOUS: Final = 5
#: Who wrote it: the name and the incarnation of the replica.
NAME: Final = 6
INCARNATION: Final = 7

#: What an entry costs on the wire beside its texts, and what a removal costs.
_ENTRY_OVERHEAD = 32
_REMOVAL_SIZE = 20


def identity(entry: Entry) -> Identity:
    """What names the presence for its whole life; sorts by replica, then by age."""
    return entry[NAME], entry[INCARNATION], entry[ID]


def ref(entry: Entry) -> str:
    """The id of this version of this presence, unique in the cluster."""
    return ref_of(entry, entry[VERSION])


def ref_of(entry: Entry, version: int) -> str:
    """The id of another version of the same presence."""
    return f"{entry[INCARNATION]:x}-{version:x}"


def size_of(change: Change) -> int:
    """About how many bytes a change takes on the wire."""
    if len(change) == 2:
        return _REMOVAL_SIZE
    return _ENTRY_OVERHEAD + _text_size(change[TOPIC]) + _text_size(change[KEY]) + len(change[META])


def _text_size(text: str) -> int:
    """About how many bytes a name takes as ASCII JSON: twelve for a character beyond the BMP."""
    return len(text) if text.isascii() else 12 * len(text)
