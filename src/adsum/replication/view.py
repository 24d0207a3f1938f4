"""The index of shown presences by topic and key, kept up to date by merging.

Reads never wait and never scan: counting is the length of a dict, and listing copies only its
result. A change costs the same at any size of the topic. A page of a topic costs one visit of its
keys at most, and the rendering of the page alone; see `keyorder`.

Invariant, checked in simulation: the view holds exactly the entries of the slices that are shown,
except for slices that are being shown or hidden (see `visibility`). The changes given to an
observer fold to exactly the content of the view.

Invariant: a topic of the view is marked as `Topic.watched` exactly if its name is watched or begins
with a watched prefix. It is marked when it appears, and when a watcher begins or ends. So a change
of a topic that nobody watches costs one look at its mark, for any number of watchers.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import islice
from typing import Any

from adsum.collector import CollectorPause
from adsum.values.frozen import FrozenDict, FrozenList, freeze
from adsum.values.jsontext import load

from .entry import (
    INCARNATION,
    KEY,
    META,
    PREVIOUS,
    TOPIC,
    VERSION,
    Entry,
    Transition,
    identity,
)
from .keygroup import LARGE, Group
from .keyorder import KeyOrder

#: Keys whose metas are decoded in one call: few, so that the temporary dicts stay in the cache of
#: the processor. To render more keys the collector is paused.
_PIECE = 256


class Topic:
    """The presences of one topic."""

    __slots__ = ("_order", "_read", "_rendered", "_stale", "kept", "keys", "watched")

    def __init__(self) -> None:
        #: The presences of each key: a single entry, or a group of two or more.
        self.keys: dict[str, Entry | Group] = {}
        # The cached result of `render`, in key order, or None; valid except for the stale keys.
        self._rendered: dict[str, FrozenDict] | None = None
        self._stale: set[str] = set()
        # The order of the keys, from the first page on, or None.
        self._order: KeyOrder | None = None
        #: The keys whose groups may hold a cached answer, until `age` drops it.
        self.kept: frozenset[str] = frozenset()
        # Whether this topic was read since the last call of `age`.
        self._read = False
        #: Whether changes of this topic are collected for observers.
        self.watched = False

    def add(self, entry: Entry) -> None:
        """Show an entry; it replaces the shown entry of the same presence, if there is one."""
        key = entry[KEY]
        held = self.keys.get(key)
        if held is None:
            self.keys[key] = entry
            if self._order is not None:
                self._order.add(key)
        elif isinstance(held, Group):
            held.put(entry)
        elif identity(held) == identity(entry):
            self.keys[key] = entry
        else:
            self.keys[key] = Group((held, entry))
        if self._rendered is not None:
            self._expire(key)

    def discard(self, entry: Entry) -> None:
        """Hide a presence that is shown."""
        key = entry[KEY]
        held = self.keys[key]
        if isinstance(held, Group):
            held.drop(entry)
            if len(held) == 1:
                self.keys[key] = next(iter(held.values()))
        else:
            del self.keys[key]
            if self._order is not None:
                self._order.discard(key)
        if self._rendered is not None:
            self._expire(key)

    def absorb(self, other: "Topic") -> None:
        """Move all entries of another topic here; the entries of new keys are not visited."""
        for key in self.keys.keys() & other.keys.keys():
            held = other.keys[key]
            for entry in held.values() if isinstance(held, Group) else (held,):
                self.add(entry)
            del other.keys[key]
        self.keys.update(other.keys)
        self._rendered = self._order = None
        self._stale.clear()

    def size(self, most: int, among: Set[str] | None = None) -> int:
        """The number of presences, of all keys or of those in `among`; counting ends above `most`.

        A result above `most` is a lower bound.
        """
        count = 0
        for key in self.keys if among is None else self.keys.keys() & among:
            held = self.keys[key]
            count += len(held) if isinstance(held, Group) else 1
            if count > most:
                break
        return count

    def entries(self, key: str) -> list[Entry]:
        """The presences of one key, in the same order on every node."""
        held = self.keys.get(key)
        if held is None:
            return []
        return held.entries() if isinstance(held, Group) else [held]

    def metas(self, key: str) -> list[FrozenDict]:
        """The metas of one key, in the same order."""
        self._read = True
        held = self.keys.get(key)
        if isinstance(held, Group) and len(held) >= LARGE:
            return self._read_group(key, held)
        return present(self.entries(key))

    def __iter__(self) -> Iterator[Entry]:
        for key in self.keys:
            yield from self.entries(key)

    def render(self) -> dict[str, FrozenDict]:
        """The presences of the topic in the format of Phoenix clients, in key order.

        The first call costs as much as the topic is large. A later call costs the changes since
        then, a copy of the dict, and a copy of the metas of each changed key.
        """
        self._read = True
        if self._rendered is None:
            self._rendered = self._render(sorted(self.keys))
        elif self._stale:
            self._rendered = self._refresh(self._rendered)
        return self._rendered.copy()

    def page(self, after: str, limit: int | None) -> dict[str, FrozenDict]:
        """The presences of the next keys above `after`, in the format and order of `render`."""
        self._read = True
        if self._order is None or self._order.outgrown:
            self._order = KeyOrder(self.keys)
        return self._render(self._order.after(after, len(self.keys) if limit is None else limit))

    def age(self) -> bool:
        """Drop cached answers that were not read since the last call.

        Returns:
            Whether they are kept.
        """
        kept, self._read = self._read, False
        if not kept:
            self._rendered = self._order = None
            self._stale.clear()
            for key in self.kept:
                held = self.keys.get(key)
                if isinstance(held, Group):
                    held.forget()
            self.kept = frozenset()
        return kept

    def _refresh(self, rendered: dict[str, FrozenDict]) -> dict[str, FrozenDict]:
        current = self._render([key for key in self._stale if key in self.keys])
        for key in self._stale - current.keys():
            rendered.pop(key, None)
        self._stale.clear()
        arrived = [key for key in current if key not in rendered]
        if arrived:
            rendered = _inserted(rendered, {key: current[key] for key in sorted(arrived)})
        rendered.update(current)
        return rendered

    def _render(self, keys: list[str]) -> dict[str, FrozenDict]:
        rendered: dict[str, FrozenDict] = {}
        if len(keys) <= _PIECE:
            self._render_piece(keys, rendered)
            return rendered
        with CollectorPause():
            for start in range(0, len(keys), _PIECE):
                self._render_piece(keys[start : start + _PIECE], rendered)
        return rendered

    def _render_piece(self, keys: list[str], rendered: dict[str, FrozenDict]) -> None:
        """Render keys and add them to `rendered`; their metas are decoded together."""
        held = [self.keys[key] for key in keys]
        metas = iter(present([entry for one in held for entry in _unread(one)]))
        for key, one in zip(keys, held, strict=True):
            if isinstance(one, Group):
                own = self._list(key, one, metas)
            else:
                own = FrozenList((next(metas),))
            rendered[key] = FrozenDict(metas=own)

    def _list(self, key: str, group: Group, metas: Iterator[FrozenDict]) -> FrozenList:
        """The metas of one key, taken from an iterator over metas that were rendered together."""
        if len(group) >= LARGE:
            return self._read_group(key, group)
        return FrozenList([next(metas) for _ in group])

    def _read_group(self, key: str, group: Group) -> FrozenList:
        self.kept |= {key}
        return group.read(present)

    def _expire(self, key: str) -> None:
        """Mark a rendered key as stale; drop the rendering once about half of the keys are."""
        self._stale.add(key)
        if 2 * len(self._stale) > len(self.keys) + 8:
            self._rendered = None
            self._stale.clear()


class View:
    """The presences shown on this node, and the changes queued for observers of watched topics."""

    __slots__ = ("_changes", "_prefixes", "_rendered", "_watched", "topics")

    def __init__(self) -> None:
        self.topics: dict[str, Topic] = {}
        # The number of watchers of each topic.
        self._watched: dict[str, int] = {}
        # The watched prefixes of topics, each once for each watcher.
        self._prefixes: tuple[str, ...] = ()
        # The changes of watched topics since the last `take_changes`.
        self._changes: dict[str, list[Transition]] = {}
        # The topics that may hold cached answers.
        self._rendered: set[str] = set()

    def render(self, topic: str) -> dict[str, FrozenDict]:
        """The presences of a topic in the format of Phoenix clients, in key order.

        The dict is a copy that the caller may alter; its values are read-only.
        """
        held = self.topics.get(topic)
        if held is None:
            return {}
        self._rendered.add(topic)
        return held.render()

    def page(self, topic: str, after: str, limit: int | None) -> dict[str, FrozenDict]:
        """The presences of the next keys above `after`, in the format and order of `render`.

        Args:
            topic: The topic.
            after: The last key of the page before, or "" for the first page.
            limit: The most keys to return; None for all.
        """
        held = self.topics.get(topic)
        if held is None:
            return {}
        self._rendered.add(topic)
        return held.page(after, limit)

    def age(self) -> None:
        """Drop cached answers that were not read since the last call, to bound their memory."""
        for name in list(self._rendered):
            held = self.topics.get(name)
            if held is None or not held.age():
                self._rendered.discard(name)

    def change(self, old: Entry | None, new: Entry | None) -> None:
        """Apply one change: a join (`old` is None), an update, or a leave (`new` is None)."""
        entry = new or old
        if entry is None:
            return
        name = entry[TOPIC]
        topic = self.topics.get(name)
        if topic is None:
            topic = self.topics[name] = Topic()
            topic.watched = name in self._watched or name.startswith(self._prefixes)
        if new is not None:
            topic.add(new)
        else:
            topic.discard(entry)
            if not topic.keys:
                del self.topics[name]
        if topic.watched:
            self._changes.setdefault(name, []).append((old, new))

    def absorb(self, other: "View") -> None:
        """Move all entries of another view into this one, in one step; the other one is emptied.

        A large slice can so be indexed in a view of its own, over many turns of the event loop,
        and shown in one short step: topics and keys new here are added without a look at each
        entry.
        """
        for name in self._watched_in(other):
            other.topics[name].watched = True
            joins: list[Transition] = [(None, entry) for entry in other.topics[name]]
            self._changes.setdefault(name, []).extend(joins)
        for name in other.topics.keys() & self.topics.keys():
            self.topics[name].absorb(other.topics.pop(name))
        self.topics.update(other.topics)
        other.topics = {}

    def metas(self, topic: str, key: str) -> list[FrozenDict]:
        """The metas of one key on one topic, in the format of Phoenix clients."""
        held = self.topics.get(topic)
        if held is None:
            return []
        metas = held.metas(key)
        if held.kept:
            self._rendered.add(topic)
        return metas

    def cost_of(self, other: "View", most: int) -> int:
        """The number of topics and entries that `absorb` has to visit one by one.

        Args:
            other: The view to absorb.
            most: Counting ends above this; a larger result is a lower bound.
        """
        cost = len(other.topics) if self._prefixes else 0  # each name is compared with them
        if cost > most:
            return cost
        for name in self._watched_in(other):
            cost += other.topics[name].size(most)
            if cost > most:
                return cost
        for name in other.topics.keys() & self.topics.keys():
            cost += 1 + other.topics[name].size(most, self.topics[name].keys.keys())
            if cost > most:
                return cost
        return cost

    def entries(self, topic: str, key: str) -> list[Entry]:
        """The presences of one key on one topic, in the same order on every node."""
        held = self.topics.get(topic)
        return held.entries(key) if held is not None else []

    def all_entries(self, topic: str) -> list[Entry]:
        """Every presence on a topic."""
        held = self.topics.get(topic)
        return list(held) if held is not None else []

    def count(self, topic: str) -> int:
        """The number of keys present on a topic."""
        held = self.topics.get(topic)
        return len(held.keys) if held is not None else 0

    def watch(self, topic: str) -> None:
        """Collect the changes of a topic from now on."""
        self._watched[topic] = self._watched.get(topic, 0) + 1
        self._mark([topic])

    def unwatch(self, topic: str) -> None:
        """Undo one `watch`."""
        self._watched[topic] -= 1
        if not self._watched[topic]:
            del self._watched[topic]
            self._mark([topic])

    def watch_prefix(self, prefix: str) -> None:
        """Collect the changes of all topics that begin with a prefix, also of new ones."""
        self._prefixes = (*self._prefixes, prefix)
        for name, topic in self.topics.items():
            if name.startswith(prefix):
                topic.watched = True

    def unwatch_prefix(self, prefix: str) -> None:
        """Undo one `watch_prefix`."""
        at = self._prefixes.index(prefix)
        self._prefixes = self._prefixes[:at] + self._prefixes[at + 1 :]
        names = [name for name in self.topics if name.startswith(prefix)]
        self._mark([*names, *self._changes])  # a topic without presences may have changes, too

    def take_changes(self) -> dict[str, list[Transition]]:
        """The changes of watched topics since the last call, in order for each topic."""
        changes, self._changes = self._changes, {}
        return changes

    def _is_watched(self, topic: str) -> bool:
        return topic in self._watched or topic.startswith(self._prefixes)

    def _watched_in(self, other: "View") -> Iterable[str]:
        """The topics of another view that are watched here; without prefixes, none is visited."""
        if not self._prefixes:
            return other.topics.keys() & self._watched.keys()
        return [name for name in other.topics if self._is_watched(name)]

    def _mark(self, topics: Iterable[str]) -> None:
        """Mark each topic as watched or not, and drop the changes of those that are not."""
        for name in topics:
            watched = self._is_watched(name)
            held = self.topics.get(name)
            if held is not None:
                held.watched = watched
            if not watched:
                self._changes.pop(name, None)


def _unread(held: Entry | Group) -> Iterable[Entry]:
    """The entries of a key that `_render` presents together with those of other keys.

    A large group is left out: it has a cached answer.
    """
    if not isinstance(held, Group):
        return (held,)
    return held.entries() if len(held) < LARGE else ()


def _inserted(
    rendered: Mapping[str, FrozenDict], arrived: Mapping[str, FrozenDict]
) -> dict[str, FrozenDict]:
    """A dict in key order with keys that arrived; both dicts are in key order.

    The items between new keys are copied by C code, in half the time of sorting and looking up.
    """
    merged: dict[str, FrozenDict] = {}
    order, items, copied = list(rendered), iter(rendered.items()), 0
    for key, value in arrived.items():
        place = bisect_left(order, key)
        merged.update(islice(items, place - copied))
        merged[key] = value
        copied = place
    merged.update(items)
    return merged


def present(entries: Sequence[Entry], previous: Sequence[int] | None = None) -> list[FrozenDict]:
    """The metas of entries in the format of Phoenix clients, each with its `phx_ref`; read-only.

    Args:
        entries: The entries to present.
        previous: The version that each entry replaced; by default its `PREVIOUS`.
    """
    # In one call: decoding one small text takes longer in the calls than in the text.
    text = ",".join([entry[META] for entry in entries])
    metas: list[dict[str, Any]] = load(f"[{text}]")
    if text.count("{") > len(entries) or "[" in text:  # nested values, or brackets in strings
        metas = [freeze(meta) for meta in metas]
    lives = {incarnation: f"{incarnation:x}" for incarnation in {e[INCARNATION] for e in entries}}
    versions = [entry[PREVIOUS] for entry in entries] if previous is None else previous
    return [
        FrozenDict(meta, phx_ref=f"{lives[entry[INCARNATION]]}-{entry[VERSION]:x}")
        if replaced is None
        else FrozenDict(
            meta,
            phx_ref_prev=f"{lives[entry[INCARNATION]]}-{replaced:x}",
            phx_ref=f"{lives[entry[INCARNATION]]}-{entry[VERSION]:x}",
        )
        for entry, meta, replaced in zip(entries, metas, versions, strict=True)
    ]


def meta_text(entry: Entry, previous: int | None = None) -> str:
    """The meta of an entry in the format of Phoenix clients, as JSON text.

    Args:
        entry: The entry to present.
        previous: The version that it replaced; by default its `PREVIOUS`.
    """
    return _with_refs(entry, entry[PREVIOUS] if previous is None else previous)


def _with_refs(entry: Entry, previous: int | None) -> str:
    """The JSON text of a meta with its refs added; a meta is known to be a JSON object."""
    meta, life = entry[META], f"{entry[INCARNATION]:x}"
    refs = f'"phx_ref":"{life}-{entry[VERSION]:x}"}}'
    if previous is not None:
        refs = f'"phx_ref_prev":"{life}-{previous:x}",{refs}'
    return f"{meta[:-1]},{refs}" if len(meta) > 2 else f"{{{refs}"
