"""Entries and removals: one version of one presence, as a plain tuple, with names for its fields.

Entries are plain tuples of strings and numbers, because there are hundreds of thousands of them:
the garbage collector untracks such a tuple at its first visit, while it visits an instance of a
class, a named tuple included, as long as it lives. Read the fields by position with the names
below, as ``entry[KEY]``. An entry is never altered: an update makes a new one.
"""

from typing import Final

#: (version, id, topic, key, meta, previous, name, incarnation)
Entry = tuple[int, int, str, str, str, int | None, str, int]
#: The end of a presence, a tombstone: (version, id)
Removal = tuple[int, int]
Change = Entry | Removal
#: A change for observers: the entry before (None: a join) and the entry after (None: a leave).
Transition = tuple[Entry | None, Entry | None]
#: The lifelong identity of a presence: the name and incarnation of its replica, and its id.
Identity = tuple[str, int, int]

#: The version of this value, or of the removal: each change of a replica takes the next number.
VERSION: Final = 0
#: The version at which the presence began.
ID: Final = 1
#: The topic of the presence.
TOPIC: Final = 2
#: The key under which the topic lists the presence, such as a user id.
KEY: Final = 3
#: A JSON object as text: ready to send to peers and browsers, and immutable.
META: Final = 4
#: The version of the value that this one replaced, or None.
PREVIOUS: Final = 5
#: The name and the incarnation of the replica that owns the presence.
NAME: Final = 6
INCARNATION: Final = 7

#: Bytes on the wire, about: of an entry without its texts, and of a removal.
_ENTRY_OVERHEAD = 32
_REMOVAL_SIZE = 20


def identity(entry: Entry) -> Identity:
    """The identity of a presence, constant for its whole life; sorts by replica, then by age."""
    return entry[NAME], entry[INCARNATION], entry[ID]


def ref(entry: Entry) -> str:
    """The `phx_ref` of an entry: identifies this version of this presence in the cluster."""
    return ref_of(entry, entry[VERSION])


def ref_of(entry: Entry, version: int) -> str:
    """The `phx_ref` of another version of the same presence."""
    return f"{entry[INCARNATION]:x}-{version:x}"


def size_of(change: Change) -> int:
    """The approximate size of a change on the wire, in bytes."""
    if len(change) == 2:
        return _REMOVAL_SIZE
    return _ENTRY_OVERHEAD + _text_size(change[TOPIC]) + _text_size(change[KEY]) + len(change[META])


def _text_size(text: str) -> int:
    """The approximate size of a name as ASCII JSON, in bytes.

    If it is not ASCII, each character counts as twelve bytes, as one beyond the BMP takes.
    """
    return len(text) if text.isascii() else 12 * len(text)
