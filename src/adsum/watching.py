"""Following a topic: diffs in order, each change once, merged for a slow reader."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from adsum.reading import Reader, Readers
from adsum.replication.entry import KEY, VERSION, Entry, Identity, Transition, identity
from adsum.replication.frozen import FrozenDict, FrozenList
from adsum.replication.view import present

T = TypeVar("T")

Entries = dict[str, Any]
#: What to add to the entries of a topic, by key.
Enrich = Callable[[str, Entries], Awaitable[Entries]]


@dataclass(frozen=True, slots=True)
class Diff:
    """What changed on a topic since the last diff.

    Each is a dict of keys like that of `Presence.list`, with the metas concerned. An update is in
    `updates` alone, with its new meta, whose ``phx_ref_prev`` names the one that this reader knew.

    Attributes:
        joins: What was not present before.
        leaves: What is not present any more, as it was last.
        updates: What is present with another meta.
    """

    joins: Entries = field(default_factory=dict)
    leaves: Entries = field(default_factory=dict)
    updates: Entries = field(default_factory=dict)


class Watch(Reader[Diff]):
    """An asynchronous iterator of the diffs of one topic; made by `Presence.watch`.

    The first diff always comes at once: everybody who was present when the watch began, as joins,
    which may be nobody. So folding all diffs gives exactly the list. A reader that is slower than
    the changes gets them merged: its memory is bounded by what it has seen and what is present. The
    iteration ends when the watch or the node is closed. One task reads at a time. A watch without a
    reference, as after leaving an `async for`, is closed; while a task awaits it, that task keeps
    it open.
    """

    def __init__(self, topic: str, readers: Readers["Watch"]) -> None:
        super().__init__(readers)
        self.topic = topic
        # What each presence was when the reader last heard of it, and what it is now.
        self._pending: dict[Identity, Transition] = {}
        self._extras: Entries = {}
        # Whether the first diff, which comes even if nobody is present, is there to be read.
        self._first = False
        self._begun = False

    def merge(self, transitions: list[Transition], extras: Entries) -> None:
        """Add changes to the next diff."""
        if self._closed:
            return
        fold(self._pending, transitions)
        if not self._begun:
            self._begun = self._first = True
        self._extras.update(extras)
        if not self._pending:
            self._extras.clear()
        self._ready.set()

    def _has_more(self) -> bool:
        return bool(self._pending) or self._first

    def _take(self) -> Diff:
        self._first = False
        pending, self._pending = self._pending, {}
        extras, self._extras = self._extras, {}
        return make_diff(list(pending.values()), extras)

    def _drop(self) -> None:
        self._pending.clear()


class Feed:
    """The changes of one topic on their way to its watches.

    Where entries are enriched, one look-up serves all watches, and changes that come while it is
    under way wait for the next one, so no diff overtakes another.

    Args:
        topic: The topic.
        enrich: What to add to its entries, if anything.
        watches: The watches of the topic.
    """

    def __init__(self, topic: str, enrich: Enrich | None, watches: Readers[Watch]) -> None:
        self.watches = watches
        self._topic = topic
        self._enrich = enrich
        # Changes that wait for being enriched, each with the watches that began before it.
        self._waiting: list[tuple[list[Watch], list[Transition]]] = []
        self._task: asyncio.Task[None] | None = None

    def push(self, watches: list[Watch], transitions: list[Transition]) -> None:
        """Give changes to some of the watches, after all that was pushed before."""
        if self._enrich is None:
            for watch in watches:
                watch.merge(transitions, {})
            return
        self._waiting.append((watches, transitions))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(self._enrich))

    def close(self) -> None:
        """Stop a look-up that is under way."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self, enrich: Enrich) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                entries = [new or old for _, transitions in batch for old, new in transitions]
                concerned = [entry for entry in entries if entry is not None]
                extras = await enrich(self._topic, group(concerned, present(concerned), {}))
                for watches, transitions in batch:
                    for watch in watches:
                        watch.merge(transitions, extras)
        finally:
            self._task = None


def fold(pending: dict[Identity, Transition], transitions: list[Transition]) -> None:
    """Add changes to those that wait: of each presence what it was, and what it is now."""
    for old, new in transitions:
        entry = new or old
        if entry is None:
            continue
        name = identity(entry)
        before = pending.pop(name)[0] if name in pending else old
        if not _same(before, new):
            pending[name] = before, new


def make_diff(transitions: list[Transition], extras: Entries) -> Diff:
    """A diff of what changed, each key with what enriches it."""
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


def group(entries: list[Entry], metas: list[FrozenDict], extras: Entries) -> Entries:
    """Entries as clients read them, by key."""
    return {
        key: FrozenDict({**extras.get(key, {}), "metas": FrozenList(own)})
        for key, own in by_key(entries, metas).items()
    }


def by_key(entries: list[Entry], values: list[T]) -> dict[str, list[T]]:
    """What belongs to entries, one for each, by key, in the order in which every node lists it."""
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
