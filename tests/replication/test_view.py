"""The view equals a recomputation from scratch, and what it answers is safe to keep."""

import copy
import json
import pickle
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.replication import keygroup as group_module
from adsum.replication import view as view_module
from adsum.replication.entry import ID, TOPIC, Entry, Transition
from adsum.replication.keygroup import Group
from adsum.replication.state import Replica
from adsum.replication.view import View
from adsum.values.frozen import FrozenDict
from adsum.values.jsontext import load
from tests.support.effort import examples

from .strategies import (
    TOPICS,
    Action,
    History,
    Observer,
    check_lists,
    check_reads,
    listed,
    numbers,
    sequences,
    verbs,
)

A, B = Replica("a", 1), Replica("b", 2)


def entry(replica: Replica, id: int, version: int, topic: str = "room", key: str = "ann") -> Entry:
    meta = json.dumps({"v": version, "nested": {"list": [1]}})
    previous = None if id == version else version - 1
    return (version, id, topic, key, meta, previous, *replica)


def rendered(view: View, topic: str = "room") -> dict[str, Any]:
    held = view.topics.get(topic)
    return {} if held is None else dict(held.render())


class Shown:
    """A view, the histories of those whose entries it shows, and its observer if there is one."""

    def __init__(self) -> None:
        self.view = View()
        self.histories = [History(A), History(B)]
        self.observer: Observer | None = None
        #: What happened since the observer looked last.
        self.news: list[Transition] = []

    @property
    def present(self) -> list[Entry]:
        return [entry for history in self.histories for entry in history.now.values()]

    def act(self, verb: str, pick: int) -> None:
        if verb == "absorb":
            self.absorb(pick)
        elif verb == "list":
            topic = TOPICS[pick % 2]
            answer = list(self.view.render(topic).items())
            assert answer == list(listed(self.present, topic).items())
        elif verb == "page":
            self.page(pick)
        elif verb == "age":
            self.view.age()
        elif verb == "watch":
            self.watch_or_stop()
        elif verb == "look":
            self.look()
        else:
            self.change(self.histories[pick % len(self.histories)], verb, pick)

    def change(self, history: History, verb: str, pick: int) -> None:
        before = history.now
        change = history.act(verb, pick)
        self.news.append((before.get(change[ID]), history.now.get(change[ID])))
        self.view.change(*self.news[-1])

    def absorb(self, pick: int) -> None:
        """A slice that was indexed aside is shown at once."""
        tracks = [("track", pick + number) for number in range(pick % 6)]
        other, aside = History(Replica("c", len(self.histories)), tracks), View()
        for entry in other.now.values():
            aside.change(None, entry)
        self.view.absorb(aside)
        self.histories.append(other)
        self.news += [(None, entry) for entry in other.now.values()]

    def page(self, pick: int) -> None:
        topic, limit = TOPICS[pick % 2], 1 + pick % 3
        expected = listed(self.present, topic)
        walked, after = dict[str, object](), ""
        while page := self.view.page(topic, after, limit):
            assert len(page) <= limit
            walked.update(page)
            after = list(page)[-1]
        assert list(walked.items()) == list(expected.items())
        assert self.view.page(topic, "", None) == expected

    def watch_or_stop(self) -> None:
        if self.observer is None:
            self.observer, self.news = Observer(self.view), []
        else:
            self.observer.stop()
            self.observer = None
            assert self.view.take_changes() == {}

    def look(self) -> None:
        if self.observer is not None:
            assert Counter(self.observer.look()) == Counter(self.news)
        self.news = []

    def check(self) -> None:
        for topic in TOPICS:
            check_reads(self.view, self.present, topic)


happenings = st.sampled_from(["absorb", "list", "page", "age", "watch", "look"])


@examples(100)
@given(sequences(st.tuples(verbs | happenings, numbers)))
def test_view_equals_a_recomputation(history: list[Action]) -> None:
    shown = Shown()
    for verb, pick in history:
        shown.act(verb, pick)
        shown.check()
    shown.look()
    check_lists(shown.view, shown.present)


@examples(100)
@given(sequences(st.tuples(verbs | happenings, numbers)), st.sampled_from([1, 4]))
def test_large_topic_equals_a_recomputation(history: list[Action], patched_part: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(view_module, "LARGE", 2)
        patch.setattr(group_module, "_PATCHED_PART", patched_part)
        shown = Shown()
        for verb, pick in history:
            shown.act(verb, pick)
            for topic in TOPICS:
                expected = listed(shown.present, topic)
                assert list(shown.view.render(topic).items()) == list(expected.items())
                for key, entry in expected.items():
                    assert {"metas": shown.view.metas(topic, key)} == entry


def test_change_in_a_large_topic_presents_only_the_change(monkeypatch: pytest.MonkeyPatch) -> None:
    presented = list[int]()

    def present(entries: Any, previous: Any = None) -> Any:
        presented.append(len(entries))
        return original(entries, previous)

    original = view_module.present
    monkeypatch.setattr(view_module, "present", present)
    view = View()
    for id in range(1, 2001):
        view.change(None, entry(A, id, id))
    for change in (
        (None, entry(A, 3000, 3000)),
        (entry(A, 7, 7), entry(A, 7, 3001)),
        (entry(A, 8, 8), None),
    ):
        view.render("room")
        presented.clear()
        view.change(*change)
        assert len(view.render("room")["ann"]["metas"]) == 2000 + (change[1] is not None)
        assert view.metas("room", "ann") == view.render("room")["ann"]["metas"]
        assert sum(presented) <= 1


def test_snapshot_of_a_large_topic_is_immutable_and_json() -> None:
    view = View()
    for id in range(1, 101):
        view.change(None, entry(A, id, id))
    before = rendered(view)["ann"]
    kept = copy.deepcopy(before)
    view.change(entry(A, 1, 1), None)
    view.change(entry(A, 2, 2), entry(A, 2, 200))
    assert len(rendered(view)["ann"]["metas"]) == 99
    assert before == kept == json.loads(json.dumps(before))


def test_large_topic_without_readers_caches_no_snapshot() -> None:
    view = View()
    for id in range(1, 101):
        view.change(None, entry(A, id, id))
    view.metas("room", "ann")
    group = view.topics["room"].keys["ann"]
    assert isinstance(group, Group)
    view.age()
    assert group._answer is not None
    view.age()
    assert group._answer is None
    assert view._rendered == set()


places = st.tuples(st.sampled_from(TOPICS), st.sampled_from(["ann", "bob", "eve", "zoe", "kim"]))
people = st.lists(places, max_size=60)


@given(people, people)
def test_absorbing_a_view_equals_showing_its_entries_one_by_one(
    first: list[tuple[str, str]], second: list[tuple[str, str]]
) -> None:
    entries = [entry(A, n, n, *place) for n, place in enumerate(first, 1)]
    others = [entry(B, n, n, *place) for n, place in enumerate(second, 1)]
    at_once, one_by_one, aside = View(), View(), View()
    for view in (at_once, one_by_one):
        view.watch("room")
        for shown in entries:
            view.change(None, shown)
        rendered(view)
        view.take_changes()
    for shown in others:
        aside.change(None, shown)
        one_by_one.change(None, shown)
    at_once.absorb(aside)
    for topic in ("room", "hall"):
        assert rendered(at_once, topic) == rendered(one_by_one, topic)

    def told(view: View) -> set[int]:
        changes: list[Transition] = view.take_changes().get("room", [])
        return {new[ID] for old, new in changes if old is None and new is not None}

    assert told(at_once) == told(one_by_one)


def test_empty_topics_are_removed() -> None:
    view, present = View(), entry(A, 1, 1)
    view.change(None, present)
    view.change(present, None)
    assert view.topics == {}


def test_snapshot_does_not_change_under_its_reader() -> None:
    view, first = View(), entry(A, 1, 1)
    view.change(None, first)
    before = rendered(view)
    kept = copy.deepcopy(before)
    view.change(first, entry(A, 1, 2))
    view.change(None, entry(B, 1, 1, key="bob"))
    rendered(view)
    assert before == kept


def test_snapshot_cannot_alter_the_view() -> None:
    view = View()
    view.change(None, entry(A, 1, 1))
    answer = rendered(view)
    answer["intruder"] = {}
    with pytest.raises(TypeError, match="read-only"):
        answer["ann"]["metas"] = []
    with pytest.raises(TypeError, match="read-only"):
        answer["ann"]["metas"].append({})
    with pytest.raises(TypeError, match="read-only"):
        answer["ann"]["metas"][0]["v"] = 9
    with pytest.raises(TypeError, match="read-only"):
        answer["ann"]["metas"][0]["nested"]["list"] += [2]
    assert list(rendered(view)) == ["ann"]


@pytest.mark.parametrize("method", ["clear", "pop", "popitem", "setdefault", "update"])
def test_read_only_dict_rejects_every_mutation(method: str) -> None:
    with pytest.raises(TypeError):
        getattr(FrozenDict({"a": 1}), method)("a")


def test_read_only_snapshots_copy_compare_and_encode_as_dicts() -> None:
    view = View()
    view.change(None, entry(A, 1, 1))
    answer = rendered(view)["ann"]
    plain = {"metas": [{"v": 1, "nested": {"list": [1]}, "phx_ref": "1-1"}]}
    assert answer == plain
    assert json.loads(json.dumps(answer)) == plain
    for ordinary in (copy.deepcopy(answer), pickle.loads(pickle.dumps(answer))):
        assert ordinary == plain
        ordinary["metas"][0]["nested"]["list"].append(2)
    assert rendered(view)["ann"] == plain


def test_update_names_the_replaced_ref() -> None:
    view, first = View(), entry(A, 1, 1)
    view.change(None, first)
    view.change(first, entry(A, 1, 2))
    assert rendered(view)["ann"]["metas"][0]["phx_ref_prev"] == "1-1"


def test_unread_rendering_is_dropped() -> None:
    view = View()
    view.change(None, entry(A, 1, 1))
    view.render("room")
    view.age()
    assert view.topics["room"]._rendered is not None
    view.age()
    assert view.topics["room"]._rendered is None
    assert view._rendered == set()
    assert list(view.render("room")) == ["ann"]


changing = st.lists(st.tuples(st.integers(0, 39), st.booleans()), max_size=12)


@examples(100)
@given(st.sets(st.integers(0, 39)), st.lists(changing, max_size=12), st.integers(1, 9))
def test_key_that_stays_is_on_exactly_one_page_of_a_changing_topic(
    first: set[int], changes: list[list[tuple[int, bool]]], limit: int
) -> None:
    view, ids = View(), iter(range(1, 1000))
    present = dict[str, Entry]()

    def change(number: int, join: bool) -> None:
        key = f"user {number}"
        if join and key not in present:
            id = next(ids)
            present[key] = entry(A, id, id, key=key)
            view.change(None, present[key])
        elif not join and key in present:
            view.change(present.pop(key), None)

    for number in first:
        change(number, True)
    stayed, seen, after = set(present), list[str](), ""
    for batch in [*changes, *[[]] * 41]:
        page = view.page("room", after, limit)
        seen += page
        if len(page) < limit:
            break
        after = seen[-1]
        for number, join in batch:
            change(number, join)
        stayed &= present.keys()
    else:
        pytest.fail("the pages have no end")
    assert seen == sorted(set(seen))
    assert stayed <= set(seen)


def test_first_page_decodes_only_its_own_metas(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = list[str]()

    def counted_load(text: str) -> Any:
        decoded.append(text)
        return load(text)

    monkeypatch.setattr(view_module, "load", counted_load)
    view = View()
    for id in range(1, 20_001):
        view.change(None, (id, id, "room", f"user {id}", '{"a":1}', None, *A))
    page = view.page("room", "", 50)
    assert len(page) == 50
    assert sum(text.count("{") for text in decoded) == 50
    assert view.topics["room"]._rendered is None


def test_order_of_a_topic_is_dropped_when_no_page_was_read() -> None:
    view = View()
    view.change(None, entry(A, 1, 1))
    assert list(view.page("room", "", 5)) == ["ann"]
    view.age()
    assert view.topics["room"]._order is not None
    view.age()
    assert view.topics["room"]._order is None
    assert view.page("nowhere", "", 5) == {}


def test_own_refs_of_a_meta_are_replaced_and_nested_values_are_read_only() -> None:
    view = View()
    meta = '{"phx_ref":"forged","a":{"b":[{"c":1}]},"d":"[{"}'
    old: Entry = (1, 1, "room", "ann", meta, None, "a", 10)
    view.change(None, old)
    view.change(old, (255, 1, "room", "ann", meta, 1, "a", 10))
    [shown] = view.metas("room", "ann")
    nested = {"a": {"b": [{"c": 1}]}, "d": "[{"}
    assert shown == {"phx_ref": "a-ff", **nested, "phx_ref_prev": "a-1"}
    with pytest.raises(TypeError):
        shown["a"]["b"][0]["c"] = 2
    with pytest.raises(TypeError):
        shown["a"]["b"].append(2)


class Watchers:
    """A view with watchers of topics and of prefixes; each folds the changes that it receives."""

    NAMES = ("a", "a:1", "a:2", "b:1")

    def __init__(self) -> None:
        self.view = View()
        self.present: dict[int, Entry] = {}
        #: The watched name, whether it is a prefix, and the entries that the watcher knows.
        self.watchers: list[tuple[str, bool, dict[int, Entry]]] = []
        self.number = 0

    def act(self, verb: str, pick: int) -> None:
        name = self.NAMES[pick % 4]
        if verb == "join":
            self.view.change(None, self.joined(name, pick))
        elif verb == "absorb":
            aside = View()
            for one in range(pick % 5):
                aside.change(None, self.joined(self.NAMES[(pick + one) % 4], one))
            self.view.absorb(aside)
        elif verb == "leave" and self.present:
            self.view.change(self.present.pop(self.picked(pick)), None)
        elif verb == "update" and self.present:
            old = self.present[self.picked(pick)]
            self.number += 1
            new = self.present[old[ID]] = (self.number, *old[1:])
            self.view.change(old, new)
        elif verb in ("watch", "watch prefix"):
            self.watch(name[: pick % 4] if verb == "watch prefix" else name, verb != "watch")
        elif verb == "unwatch" and self.watchers:
            name, prefix, _ = self.watchers.pop(pick % len(self.watchers))
            (self.view.unwatch_prefix if prefix else self.view.unwatch)(name)
        elif verb == "take":
            self.take()

    def joined(self, topic: str, pick: int) -> Entry:
        self.number += 1
        new = entry(A, self.number, self.number, topic, f"user {pick % 3}")
        self.present[self.number] = new
        return new

    def picked(self, pick: int) -> int:
        return list(self.present)[pick % len(self.present)]

    def watch(self, name: str, prefix: bool) -> None:
        self.take()  # earlier changes are for earlier watchers
        known = {e[ID]: e for e in self.present.values() if covers(name, prefix, e[TOPIC])}
        self.watchers.append((name, prefix, known))
        (self.view.watch_prefix if prefix else self.view.watch)(name)

    def take(self) -> None:
        changes = self.view.take_changes()
        for topic, transitions in changes.items():
            assert self.watched(topic), "changes of an unwatched topic were collected"
            for name, prefix, known in self.watchers:
                if covers(name, prefix, topic):
                    for old, new in transitions:
                        if old is not None:
                            assert known.pop(old[ID]) == old
                        if new is not None:
                            assert new[ID] not in known
                            known[new[ID]] = new
        for name, prefix, known in self.watchers:
            present = {e[ID]: e for e in self.present.values() if covers(name, prefix, e[TOPIC])}
            assert known == present

    def watched(self, topic: str) -> bool:
        return any(covers(name, prefix, topic) for name, prefix, _ in self.watchers)


def covers(name: str, prefix: bool, topic: str) -> bool:
    return topic.startswith(name) if prefix else topic == name


watching = st.sampled_from(
    ["join", "join", "leave", "update", "absorb", "watch", "watch prefix", "unwatch", "take"]
)


@examples(200)
@given(sequences(st.tuples(watching, numbers)))
def test_watchers_of_topics_and_prefixes_get_exactly_their_changes(history: list[Action]) -> None:
    watchers = Watchers()
    for verb, pick in history:
        watchers.act(verb, pick)
        for name, topic in watchers.view.topics.items():
            assert topic.watched == watchers.watched(name)
        for name in watchers.view._changes:
            assert watchers.watched(name)
    watchers.take()


def test_cost_of_absorbing_counts_each_name_compared_with_a_prefix() -> None:
    view, aside = View(), View()
    for number in range(1, 4):
        aside.change(None, entry(B, number, number, f"room:{number}"))
    assert view.cost_of(aside, 100) == 0
    view.watch_prefix("other")
    assert view.cost_of(aside, 100) == 3
    view.watch_prefix("room:")
    assert view.cost_of(aside, 100) == 6
    assert view.cost_of(aside, 2) == 3
