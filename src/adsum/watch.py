"""Watches of a topic: diffs in order, each change once, merged for a slow reader."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast, overload

from adsum.quoting import quoted
from adsum.replication.entry import KEY, VERSION, Entry, Identity, Transition, identity
from adsum.replication.view import present
from adsum.singlereader import ReaderSet, SingleReaderIterator
from adsum.tasks import in_slices
from adsum.values.frozen import FrozenDict, FrozenList

T = TypeVar("T")


class PresenceEntry(Mapping[str, Any]):
    """The entry of one key: ``{"metas": [...]}``, and the fields that `fetch` adds.

    Type checkers see this type. At run time an entry is a read-only dict, registered here, so
    `isinstance` agrees. A checker therefore refuses to alter an entry, its list of metas, or a
    meta, which would raise `TypeError`.
    """

    @overload
    def __getitem__(self, name: Literal["metas"], /) -> Sequence[Mapping[str, Any]]: ...
    @overload
    def __getitem__(self, name: str, /) -> Any: ...
    def __getitem__(self, name: str, /) -> Any:
        raise NotImplementedError  # never called: entries are instances of the registered class


PresenceEntry.register(FrozenDict)

Entries = dict[str, PresenceEntry]
#: The fields that a `fetch` function adds to entries, by key.
Extras = dict[str, Mapping[str, Any]]
#: Returns the extras for the entries of a topic.
Enrich = Callable[[str, Entries], Awaitable[Extras]]


@dataclass(frozen=True, slots=True)
class Diff:
    """The joins, leaves and updates on a topic since the last diff.

    Each attribute is a dict by key, as `Presence.list` returns, with the changed metas only. An
    update is in `updates` alone, with its new meta; its ``phx_ref_prev`` is the ``phx_ref`` that
    this reader knew.

    Attributes:
        joins: Presences that are new.
        leaves: Presences that have ended, with their last meta.
        updates: Presences with a changed meta.
    """

    joins: Entries = field(default_factory=dict)
    leaves: Entries = field(default_factory=dict)
    updates: Entries = field(default_factory=dict)


class Watch(SingleReaderIterator[Diff]):
    """An asynchronous iterator of the diffs of one topic; made by `Presence.watch`.

    The first diff always comes at once: all presences at the beginning of the watch, as joins,
    possibly none. So folding all diffs gives exactly the list. For a reader that is slower than the
    changes they are merged: memory is bounded by the presences that it has seen and those that are
    present. The iteration ends when the watch or the node is closed. One task reads at a time. A
    watch without a reference, as after leaving an `async for`, is closed; while a task awaits it,
    that task keeps it open.
    """

    def __init__(self, topic: str, readers: ReaderSet["Watch"]) -> None:
        super().__init__(readers)
        self.topic = topic
        # Unread changes: the entry that the reader has seen last, and the current one.
        self._pending: dict[Identity, Transition] = {}
        # The fields that `fetch` added to the key of each pending presence.
        self._extras: dict[Identity, Mapping[str, Any]] = {}
        # Changes that no call of `fetch` has covered yet, folded; None if there were none.
        self._deferred: dict[Identity, Transition] | None = None
        # Whether the first diff, which is delivered even if it is empty, can be read.
        self._first = False
        self._begun = False
        # Whether a long batch is being merged: the next diff waits for the whole batch.
        self._merging = False

    def merge(self, transitions: Sequence[Transition], extras: Extras) -> None:
        """Add changes to the next diff."""
        if self._closed:
            return
        fold(self._pending, transitions)
        if extras or self._extras:
            self._keep(transitions, extras)
        if not self._begun:
            self._begun = self._first = True
        self._wake()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self._pending)} changes waiting"
        return f"<Watch on {quoted(self.topic)}, {state}>"

    async def merge_in_slices(self, transitions: Sequence[Transition], extras: Extras) -> None:
        """Add a long batch of changes to the next diff, over several turns of the event loop."""
        self._merging = True
        try:
            async for part in in_slices(transitions):
                self.merge(part, extras)
        finally:
            self._merging = False
        self.merge((), {})

    def defer(self, transitions: Sequence[Transition]) -> None:
        """Keep changes for the next call of `fetch`."""
        if not self._closed:
            if self._deferred is None:
                self._deferred = {}
            fold(self._deferred, transitions)

    def take_deferred(self) -> list[Transition] | None:
        """Remove and return the deferred changes; None if there were none since the last call."""
        deferred, self._deferred = self._deferred, None
        return None if deferred is None else list(deferred.values())

    @property
    def deferring(self) -> bool:
        """Whether changes are kept for the next call of `fetch`."""
        return self._deferred is not None

    def _keep(self, transitions: Sequence[Transition], extras: Extras) -> None:
        """Keep the extras of pending presences only."""
        for name, entry in _named(transitions):
            if name not in self._pending:
                self._extras.pop(name, None)
            elif entry[KEY] in extras:
                self._extras[name] = extras[entry[KEY]]

    def _has_more(self) -> bool:
        return not self._merging and (bool(self._pending) or self._first)

    def _take(self) -> Diff:
        self._first = False
        pending, self._pending = self._pending, {}
        extras, self._extras = self._extras, {}
        transitions = list(pending.values())
        # Later changes come later in `pending`, so the newest extras of a key win.
        by_key = {e[KEY]: extras[name] for name, e in _named(transitions) if name in extras}
        return make_diff(transitions, by_key)

    def _drop(self) -> None:
        self._pending.clear()
        self._extras.clear()
        self._deferred = None


def fold(pending: dict[Identity, Transition], transitions: Iterable[Transition]) -> None:
    """Merge changes into pending ones: for each presence the first old and the last new entry."""
    for old, new in transitions:
        entry = new or old
        if entry is None:
            continue
        name = identity(entry)
        before = pending.pop(name)[0] if name in pending else old
        if not _same(before, new):
            pending[name] = before, new


def make_diff(transitions: list[Transition], extras: Extras) -> Diff:
    """Make a diff of changes, with the extras of each key."""
    joins = [new for old, new in transitions if old is None and new is not None]
    leaves = [old for old, new in transitions if old is not None and new is None]
    updates = [(old, new) for old, new in transitions if old is not None and new is not None]
    return Diff(
        group(joins, present(joins), extras),
        group(leaves, present(leaves), extras),
        group(
            [new for _, new in updates],
            present([new for _, new in updates], [old[VERSION] for old, _ in updates]),
            extras,
        ),
    )


def group(entries: list[Entry], metas: list[FrozenDict], extras: Extras) -> Entries:
    """Entries in the form of `Presence.list`, by key."""
    return {
        key: entry_of(FrozenList(own), extras.get(key, {}))
        for key, own in by_key(entries, metas).items()
    }


def entry_of(metas: Sequence[Mapping[str, Any]], extras: Mapping[str, Any]) -> PresenceEntry:
    """Make an entry of metas and extras."""
    return cast(PresenceEntry, FrozenDict({**extras, "metas": metas}))


async def group_in_slices(entries: Sequence[Entry]) -> Entries:
    """As `group` without extras, over several turns of the event loop if there are many."""
    found: dict[str, list[tuple[Identity, FrozenDict]]] = {}
    async for part in in_slices(entries):
        for entry, meta in zip(part, present(part), strict=True):
            found.setdefault(entry[KEY], []).append((identity(entry), meta))
    grouped: Entries = {}
    async for some in in_slices(list(found.items())):
        for key, metas in some:
            metas.sort(key=_first)
            grouped[key] = entry_of(FrozenList(meta for _, meta in metas), {})
    return grouped


async def changed_entries(batch: list[tuple[Watch, list[Transition]]]) -> list[Entry]:
    """The last entry of each presence that changed, once, regardless of the number of watches."""
    found: dict[Identity, Entry] = {}
    for _, transitions in batch:
        async for part in in_slices(transitions):
            found.update(_named(part))
    return list(found.values())


def _named(transitions: Iterable[Transition]) -> Iterator[tuple[Identity, Entry]]:
    """The last entry of each change, with the identity of its presence."""
    for old, new in transitions:
        entry = new or old
        if entry is not None:
            yield identity(entry), entry


def by_key(entries: list[Entry], values: list[T]) -> dict[str, list[T]]:
    """Group values by the key of their entry, in the order in which every node lists them."""
    found: dict[str, list[tuple[Identity, T]]] = {}
    for entry, value in zip(entries, values, strict=True):
        found.setdefault(entry[KEY], []).append((identity(entry), value))
    return {key: [value for _, value in sorted(found[key], key=_first)] for key in sorted(found)}


def _first(item: tuple[Identity, object]) -> Identity:
    return item[0]


def _same(before: Entry | None, after: Entry | None) -> bool:
    if before is None or after is None:
        return before is after
    return before[VERSION] == after[VERSION]
