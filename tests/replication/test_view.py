"""The view equals a recomputation from scratch, and what it answers is safe to keep."""

import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.replication.entry import (
    ID,
    KEY,
    TOPIC,
    Entry,
    Transition,
    identity,
    ref,
)
from adsum.replication.frozen import FrozenDict
from adsum.replication.state import Replica
from adsum.replication.view import View

A, B = Replica("a", 1), Replica("b", 2)


def entry(replica: Replica, id: int, version: int, topic: str = "room", key: str = "ann") -> Entry:
    meta = json.dumps({"v": version, "nested": {"list": [1]}})
    previous = None if id == version else version - 1
    return (version, id, topic, key, meta, previous, *replica)


def rendered(view: View, topic: str = "room") -> dict[str, Any]:
    held = view.topics.get(topic)
    return {} if held is None else dict(held.render())


def refs(view: View, topic: str) -> dict[str, list[str]]:
    return {k: [meta["phx_ref"] for meta in e["metas"]] for k, e in rendered(view, topic).items()}


steps = st.lists(
    st.tuples(
        st.sampled_from(["join", "update", "leave", "list"]),
        st.sampled_from([A, B]),
        st.sampled_from(["room", "hall"]),
        st.sampled_from(["ann", "bob", "eve", "zoe", "kim"]),
        st.integers(0, 99),
    ),
    max_size=60,
)


@given(steps)
def test_the_view_equals_a_recomputation(
    history: list[tuple[str, Replica, str, str, int]],
) -> None:
    view, live = View(), list[Entry]()
    for version, (action, replica, topic, key, pick) in enumerate(history, 1):
        if action == "join":
            live.append(entry(replica, version, version, topic, key))
            view.change(None, live[-1])
        elif action == "list":
            rendered(view, topic)
        elif live:
            old = live.pop(pick % len(live))
            new = (
                entry(Replica(*old[6:]), old[ID], version, old[TOPIC], old[KEY])
                if action == "update"
                else None
            )
            view.change(old, new)
            live += [new] if new is not None else []
        for name in ("room", "hall"):
            expected: dict[str, list[str]] = {}
            here = [entry for entry in live if entry[TOPIC] == name]
            for present in sorted(here, key=lambda e: (e[KEY], identity(e))):
                expected.setdefault(present[KEY], []).append(ref(present))
            held = view.topics.get(name)
            assert (len(held.keys) if held is not None else 0) == len(expected)
            if action == "list":
                assert refs(view, name) == expected
                assert list(refs(view, name)) == sorted(expected)
            assert {k: [ref(e) for e in view.entries(name, k)] for k in expected} == expected


@given(steps, steps)
def test_absorbing_a_view_equals_showing_its_entries_one_by_one(
    first: list[tuple[str, Replica, str, str, int]],
    second: list[tuple[str, Replica, str, str, int]],
) -> None:
    entries = [entry(A, n, n, topic, key) for n, (_, _, topic, key, _) in enumerate(first, 1)]
    others = [entry(B, n, n, topic, key) for n, (_, _, topic, key, _) in enumerate(second, 1)]
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


def test_topics_that_nobody_is_on_are_gone() -> None:
    view, present = View(), entry(A, 1, 1)
    view.change(None, present)
    view.change(present, None)
    assert view.topics == {}


def test_an_answer_does_not_change_under_its_reader() -> None:
    view, first = View(), entry(A, 1, 1)
    view.change(None, first)
    before = rendered(view)
    kept = copy.deepcopy(before)
    view.change(first, entry(A, 1, 2))
    view.change(None, entry(B, 1, 1, key="bob"))
    rendered(view)
    assert before == kept


def test_an_answer_cannot_be_used_to_alter_what_is_known() -> None:
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
def test_no_method_of_a_read_only_dict_alters_it(method: str) -> None:
    with pytest.raises(TypeError):
        getattr(FrozenDict({"a": 1}), method)("a")


def test_read_only_answers_are_ordinary_when_copied_compared_and_encoded() -> None:
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


def test_an_update_names_the_ref_that_it_replaced() -> None:
    view, first = View(), entry(A, 1, 1)
    view.change(None, first)
    view.change(first, entry(A, 1, 2))
    assert rendered(view)["ann"]["metas"][0]["phx_ref_prev"] == "1-1"


def test_a_rendering_that_nobody_reads_is_forgotten() -> None:
    view = View()
    view.change(None, entry(A, 1, 1))
    view.render("room")
    view.age()
    assert view.topics["room"]._rendered is not None
    view.age()
    assert view.topics["room"]._rendered is None
    assert view._rendered == set()
    assert list(view.render("room")) == ["ann"]
