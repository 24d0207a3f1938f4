"""What laws are tried on: histories of replicas, what a node knows of them, and who observes it."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from random import Random
from typing import TypeVar

import pytest
from hypothesis import strategies as st

from adsum.replication import exchange, state, streams
from adsum.replication.effects import EffectQueue, Send
from adsum.replication.entry import (
    ID,
    KEY,
    META,
    PREVIOUS,
    TOPIC,
    VERSION,
    Change,
    Entry,
    Identity,
    Transition,
    identity,
    ref,
    ref_of,
)
from adsum.replication.exchange import Exchange
from adsum.replication.links import Links, PeerLink
from adsum.replication.messages import ProtocolMessage
from adsum.replication.state import Replica, Slice
from adsum.replication.timing import Timing
from adsum.replication.view import View

T = TypeVar("T")

TOPICS = ("room", "hall")
KEYS = ("zoe", "ann", "joe", "bob", "\u00e9va", "kim", "eve", "tom")

#: What a user does, and a number that picks with whom.
Action = tuple[str, int]
numbers = st.integers(0, 99)
verbs = st.sampled_from(["track", "track", "update", "untrack", "untrack"])


def sequences(of: st.SearchStrategy[T]) -> st.SearchStrategy[list[T]]:
    """Lists of very different lengths; left to themselves, nearly all lists are too short here."""
    return st.sampled_from([0, 15, 40]).flatmap(lambda least: st.lists(of, min_size=least))


actions: st.SearchStrategy[list[Action]] = sequences(st.tuples(verbs, numbers))


def picked(number: int) -> tuple[str, str, str]:
    """A topic, a key and a meta for a number."""
    return TOPICS[number % 2], KEYS[number // 2 % len(KEYS)], f'{{"n":{number}}}'


@contextmanager
def tight(history: int = 2, frame: int = 150) -> Iterator[None]:
    """Make histories and frames so short that a few changes need a reset of several frames.

    Args:
        history: How much a log may outgrow its entries; at 0 nearly every removal is forgotten.
        frame: Bytes of a delta; an entry takes about 50, a removal 20.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "SPARE_HISTORY", history)
        patch.setattr(streams, "DELTA_BUDGET", frame)
        patch.setattr(exchange, "FLUSH_BUDGET", 2 * frame)
        yield


class History:
    """All that one replica ever did, told naively: its changes, and what it had at each version."""

    def __init__(self, replica: Replica, actions: Iterable[Action] = ()) -> None:
        self.replica = replica
        self.changes: list[Change] = []
        self.contents: list[dict[int, Entry]] = [{}]
        for action in actions:
            self.act(*action)

    @property
    def now(self) -> dict[int, Entry]:
        return self.contents[-1]

    def act(self, verb: str, pick: int) -> Change:
        """Track somebody, or update or untrack the one picked of those who are there."""
        if verb == "track" or not self.now:
            return self.track(*picked(pick))
        id = list(self.now)[pick % len(self.now)]
        return self.update(id, f'{{"n":[{pick}]}}') if verb == "update" else self.untrack(id)

    def track(self, topic: str, key: str, meta: str) -> Entry:
        version = len(self.contents)
        return self._put((version, version, topic, key, meta, None, *self.replica))

    def update(self, id: int, meta: str) -> Entry:
        old = self.now[id]
        return self._put(
            (len(self.contents), id, old[TOPIC], old[KEY], meta, old[VERSION], *self.replica)
        )

    def untrack(self, id: int) -> Change:
        self.changes.append((len(self.contents), id))
        self.contents.append({other: self.now[other] for other in self.now if other != id})
        return self.changes[-1]

    def write(self, slice: Slice, upto: int) -> None:
        """Do to a slice what its owner does, up to a version."""
        for change in self.changes[slice.horizon : upto]:
            if len(change) == 2:
                slice.remove(change)
            elif change[PREVIOUS] is None:
                slice.add(change)
            else:
                slice.put(change)

    def _put(self, entry: Entry) -> Entry:
        self.changes.append(entry)
        self.contents.append({**self.now, entry[ID]: entry})
        return entry


class Observer:
    """Folds what a view tells of its topics, and refuses what does not fit what was told before."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._seen = self._shown()
        for topic in TOPICS:
            view.watch(topic)

    def look(self) -> list[Transition]:
        """Take what is new; returns it. It must lead to exactly what is shown."""
        changes = self._view.take_changes()
        told = [transition for topic in sorted(changes) for transition in changes[topic]]
        for old, new in told:
            self._fold(old, new)
        assert self._seen == self._shown()
        return told

    def stop(self) -> None:
        for topic in TOPICS:
            self._view.unwatch(topic)

    def _shown(self) -> dict[Identity, Entry]:
        shown = [entry for topic in TOPICS for entry in self._view.all_entries(topic)]
        return {identity(entry): entry for entry in shown}

    def _fold(self, old: Entry | None, new: Entry | None) -> None:
        assert old != new, "nothing happened"
        if old is not None:
            assert self._seen.pop(identity(old), None) == old, "it left or changed unannounced"
        if new is not None:
            assert identity(new) not in self._seen, "it joined twice"
            assert old is None or identity(old) == identity(new), "it became somebody else"
            self._seen[identity(new)] = new


def listed(entries: Iterable[Entry], topic: str) -> dict[str, object]:
    """What a list of a topic must say, computed from nothing but what is present."""
    answer: dict[str, object] = {}
    metas: dict[str, list[object]] = {}
    here = [entry for entry in entries if entry[TOPIC] == topic]
    for entry in sorted(here, key=lambda entry: (entry[KEY], identity(entry))):
        previous = entry[PREVIOUS]
        refs = {} if previous is None else {"phx_ref_prev": ref_of(entry, previous)}
        meta = {**json.loads(entry[META]), **refs, "phx_ref": ref(entry)}
        metas.setdefault(entry[KEY], []).append(meta)
        answer[entry[KEY]] = {"metas": metas[entry[KEY]]}
    return answer


def check_lists(view: View, entries: Iterable[Entry]) -> None:
    """Whatever is asked of a view, it answers from exactly these entries, in order."""
    present = list(entries)
    assert view.topics.keys() == {entry[TOPIC] for entry in present}
    for topic in TOPICS:
        expected = listed(present, topic)
        assert list(view.render(topic).items()) == list(expected.items())
        check_reads(view, present, topic)


def check_reads(view: View, present: list[Entry], topic: str) -> None:
    """As `check_lists` for one topic, without a look at what is kept of its last list."""
    here = sorted((entry for entry in present if entry[TOPIC] == topic), key=identity)
    assert sorted(view.all_entries(topic), key=identity) == here
    assert view.count(topic) == len({entry[KEY] for entry in here})
    for key in KEYS:
        assert view.entries(topic, key) == [entry for entry in here if entry[KEY] == key]


class Peer:
    """What one node knows: the slices that it holds, all of them shown and observed."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.view, self.links, self.effects = View(), Links(Random(1)), EffectQueue()
        self.exchange = Exchange(replica, self.view, self.links, self.effects, Timing())
        self.observer = Observer(self.view)

    def __repr__(self) -> str:
        told = [f"{replica} up to {slice.horizon}" for replica, slice in self.told().items()]
        return f"{self.replica} knows {', '.join(told) or 'nobody'}"

    def open(self, id: int, to: Replica) -> PeerLink:
        link = PeerLink(id, to, opened_at=0.0, received_at=0.0)
        self.links.add(link)
        return link

    def close(self, link: PeerLink) -> None:
        self.links.remove(link)
        self.exchange.forget_link(link)

    def hold(self, replica: Replica) -> bool:
        """Show the slice of a replica, unless a later life of its name is shown."""
        for held in list(self.exchange):
            life = held.slice.replica
            if life.name == replica.name and life > replica:
                return False
            if life.name == replica.name and life < replica:
                self.exchange.drop(life)
        self.exchange.show(replica, True)
        return True

    def ask(self, link: PeerLink, replica: Replica, now: float = 0.0) -> None:
        """Ask the other end of a link for a slice, as an engine does: its own to follow it."""
        held = self.exchange.of(replica)
        assert held is not None
        if link.replica == replica:
            self.exchange.follow(link, now)
        else:
            self.exchange.ask(held, link, now)

    def slice(self, replica: Replica) -> Slice:
        held = self.exchange.of(replica)
        assert held is not None
        return held.slice

    def sent(self) -> list[ProtocolMessage]:
        return [effect.message for effect in self.effects.take() if isinstance(effect, Send)]

    def told(self) -> dict[Replica, Slice]:
        """The slices of others that are held here."""
        slices = {held.slice.replica: held.slice for held in self.exchange}
        return {replica: slice for replica, slice in slices.items() if replica != self.replica}
