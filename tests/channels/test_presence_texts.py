"""Presences as the texts that clients read: they say what `Presence.list` and diffs say."""

import json
import logging
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from adsum.channels.presence.texts import beside, diff_text, state_text
from adsum.replication.entry import Entry, Transition
from adsum.sparselog import SparseLogger
from tests.support.effort import examples

metas = st.sampled_from(["{}", '{"a":1}', '{"a":[{"b":"\\ud83d"}],"c":null}'])
keys = st.sampled_from(["ann", "bob", 'q"\\', "é", "__proto__", "\ud83d"])


def entry(id: int, key: str, meta: str = "{}", version: int = 0, name: str = "n1") -> Entry:
    version = version or id
    return version, id, "room", key, meta, None if version == id else id, name, 0xABC


def test_presence_state_has_keys_and_metas_in_list_order() -> None:
    entries = [entry(3, "bob"), entry(2, "ann", name="n2"), entry(1, "ann", '{"a":1}')]
    assert state_text(entries, {}) == (
        '{"ann":{"metas":[{"a":1,"phx_ref":"abc-1"},{"phx_ref":"abc-2"}]},'
        '"bob":{"metas":[{"phx_ref":"abc-3"}]}}'
    )
    assert state_text([], {}) == "{}"


def test_fetched_fields_are_beside_the_metas() -> None:
    ann = {"user": {"name": "Ann"}, "metas": "mine"}
    extras: dict[str, dict[str, Any]] = {"ann": ann, "nobody": {"a": 1}, "x": {}}
    fetched = beside("room", extras, SparseLogger(logging.getLogger("adsum")))
    assert state_text([entry(1, "ann")], fetched) == (
        '{"ann":{"metas":[{"phx_ref":"abc-1"}],"user":{"name":"Ann"}}}'
    )
    assert diff_text([(None, entry(1, "ann"))], fetched) == (
        '{"joins":{"ann":{"metas":[{"phx_ref":"abc-1"}],"user":{"name":"Ann"}}},"leaves":{}}'
    )


def test_update_diff_joins_with_ref_prev_known_to_this_client() -> None:
    old, new = entry(1, "ann", version=5), entry(1, "ann", '{"b":1}', version=9)
    assert diff_text([(old, new)], {}) == (
        '{"joins":{"ann":{"metas":[{"b":1,"phx_ref_prev":"abc-5","phx_ref":"abc-9"}]}},'
        '"leaves":{"ann":{"metas":[{"phx_ref_prev":"abc-1","phx_ref":"abc-5"}]}}}'
    )


def test_no_change_makes_no_diff() -> None:
    assert diff_text([], {}) is None


@examples(150)
@given(st.lists(st.tuples(keys, metas, st.sampled_from(["join", "leave", "update"])), max_size=20))
def test_presence_diff_is_json_and_has_each_meta_once(changes: list[tuple[str, str, str]]) -> None:
    transitions: list[Transition] = []
    for number, (key, meta, kind) in enumerate(changes, 1):
        old, new = entry(number, key, meta), entry(number, key, meta, 1000 + number)
        match kind:
            case "join":
                transitions.append((None, old))
            case "leave":
                transitions.append((old, None))
            case "update":
                transitions.append((old, new))
    text = diff_text(transitions, {})
    assert (text is None) == (not changes)
    if text is not None:
        assert text.isascii()
        diff = json.loads(text)
        joins, leaves = refs(diff["joins"]), refs(diff["leaves"])
        kinds = [kind for _, _, kind in changes]
        assert len(joins) == len(set(joins)) == len(kinds) - kinds.count("leave")
        assert len(leaves) == len(set(leaves)) == len(kinds) - kinds.count("join")


def refs(entries: dict[str, Any]) -> list[str]:
    return [meta["phx_ref"] for one in entries.values() for meta in one["metas"]]
