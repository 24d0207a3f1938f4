"""A slice keeps its invariants, whatever happens to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.replication.entry import ID, VERSION, Change, Entry, size_of
from adsum.replication.state import SPARE_HISTORY, Replica, Slice

ME = Replica("me", 1)


def entry(version: int, id: int | None = None, key: str = "ann") -> Entry:
    return (version, id if id is not None else version, "room", key, "{}", None, *ME)


def written(actions: list[tuple[str, int]]) -> Slice:
    """A slice whose owner did these things: track, update or untrack the n-th live entry."""
    slice = Slice(ME)
    for action, pick in actions:
        live = list(slice.entries.values())
        version = slice.horizon + 1
        if action == "track" or not live:
            slice.put(entry(version))
        elif action == "update":
            slice.put(entry(version, id=live[pick % len(live)][ID]))
        else:
            slice.remove((version, live[pick % len(live)][ID]))
    return slice


actions = st.lists(st.tuples(st.sampled_from(["track", "update", "untrack"]), st.integers(0, 9)))
#: The cuts at which a history is sent in pieces.
cuts = st.lists(st.integers(0, 60), max_size=6)


def content(slice: Slice) -> dict[int, int]:
    return {entry[ID]: entry[VERSION] for entry in slice.entries.values()}


def replicate(source: Slice, target: Slice) -> None:
    changes, upto = source.changes_after(target.horizon, budget=10**9)
    target.apply(changes, upto)


def test_each_change_takes_the_next_version() -> None:
    slice = written([("track", 0), ("track", 0), ("update", 0), ("untrack", 1)])
    assert slice.horizon == 4
    assert content(slice) in ({1: 3}, {2: 2})


@given(actions)
def test_replica_that_applied_all_deltas_has_the_whole_slice(
    history: list[tuple[str, int]],
) -> None:
    source, copy = written(history), Slice(ME)
    replicate(source, copy)
    assert content(copy) == content(source)
    assert copy.horizon == source.horizon


@given(actions, actions)
def test_duplicate_delta_changes_nothing(
    history: list[tuple[str, int]], more: list[tuple[str, int]]
) -> None:
    source, copy = written(history + more), Slice(ME)
    early = written(history).changes_after(0, 10**9)
    replicate(source, copy)
    before = content(copy)
    assert copy.apply(*early) == []
    assert copy.apply(*source.changes_after(0, 10**9)) == []
    assert content(copy) == before


@given(actions, cuts)
def test_deltas_of_any_size_add_up(history: list[tuple[str, int]], budgets: list[int]) -> None:
    source, copy = written(history), Slice(ME)
    for budget in [*budgets, *[1] * len(history), 10**9]:
        changes, upto = source.changes_after(copy.horizon, budget)
        numbers = [copy.horizon, *(change[VERSION] for change in changes)]
        assert numbers == sorted(set(numbers))
        assert numbers[-1] <= upto
        copy.apply(changes, upto)
    assert content(copy) == content(source)


@given(actions)
def test_horizon_never_decreases(history: list[tuple[str, int]]) -> None:
    source, copy = written(history), Slice(ME)
    replicate(source, copy)
    for version in range(source.horizon):
        changes, _ = source.changes_after(version, 10**9)
        copy.apply(changes[:1], version)
        assert copy.horizon == source.horizon


@given(actions)
def test_transitions_fold_to_the_slice(history: list[tuple[str, int]]) -> None:
    source, copy, folded = written(history), Slice(ME), dict[int, int]()
    for budget in [1, 40, 80, 10**9]:
        changes, upto = source.changes_after(copy.horizon, budget)
        for old, new in copy.apply(changes, upto):
            if old is not None:
                assert folded.pop(old[ID]) == old[VERSION]
            if new is not None:
                assert new[ID] not in folded
                folded[new[ID]] = new[VERSION]
    assert folded == content(copy) == content(source)


def test_changes_after_costs_only_the_returned_entries() -> None:
    slice = written([("track", 0)] * 5000)
    slice.put(entry(5001))
    assert [change[VERSION] for change in slice.changes_after(5000, 10**9)[0]] == [5001]


def test_tombstones_are_bounded_and_dropped_ones_raise_the_floor() -> None:
    slice = Slice(ME)
    for _ in range(20 * SPARE_HISTORY):
        slice.put(entry(slice.horizon + 1))
        slice.remove((slice.horizon + 1, slice.horizon))
        assert len(slice._log) <= 2 * SPARE_HISTORY + 2
    assert slice.entries == {}
    assert 0 < slice.floor < slice.horizon


def test_catch_up_from_above_the_floor_is_complete() -> None:
    slice, copies = Slice(ME), list[Slice]()
    for step in range(6 * SPARE_HISTORY):
        slice.put(entry(slice.horizon + 1))
        if step % 3:
            slice.remove((slice.horizon + 1, next(iter(slice.entries))))
        if step % 500 == 0:
            copies.append(Slice(ME))
            replicate(slice, copies[-1])
    useful = [copy for copy in copies if copy.horizon >= slice.floor]
    assert useful
    for copy in useful:
        replicate(slice, copy)
        assert content(copy) == content(slice)


def test_updates_do_not_grow_the_log() -> None:
    slice = Slice(ME)
    slice.put(entry(1))
    for version in range(2, 10 * SPARE_HISTORY):
        slice.put(entry(version, id=1))
    assert len(slice._log) <= 2 * SPARE_HISTORY + 2
    assert slice.changes_after(0, 10**9)[0] == [slice.entries[1]]


@pytest.mark.parametrize("change", [entry(1), (1, 1)])
def test_estimated_sizes_are_close_to_encoded_sizes(change: Change) -> None:
    assert 10 < size_of(change) < 60
