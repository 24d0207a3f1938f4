"""Slices that are shown and hidden in steps: nothing is lost, doubled or left behind on the way."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.driver.observer import Observer as NodeObserver
from adsum.replication import visibility as visibility_module
from adsum.replication.entry import NAME, VERSION, Entry, Identity, identity
from adsum.replication.state import Replica, Slice
from adsum.replication.view import View
from adsum.replication.visibility import Visibility
from adsum.testing import MakeCluster
from adsum.testing.simulator.trial import Trial
from tests.support.effort import examples

from .strategies import TOPICS, Action, History, Observer, numbers, picked, sequences, verbs

LIVES = [Replica("a", 1), Replica("b", 1), Replica("b", 2)]


class Shown:
    """Slices, some of them shown, and an observer of the view."""

    def __init__(self) -> None:
        self.view = View()
        self.visibility = Visibility(self.view)
        self.observer = Observer(self.view)
        self.histories = {replica: History(replica) for replica in LIVES}
        self.slices: dict[Replica, Slice] = {}
        self.visible: dict[Replica, bool] = {}

    def act(self, verb: str, pick: int) -> None:
        replica = LIVES[pick % len(LIVES)]
        if verb == "turn":
            self.turn(replica)
        elif verb == "step":
            self.visibility.step()
        elif verb == "drop":
            self.drop(replica)
        elif verb == "fill":
            self.fill(replica, pick)
        else:
            self.histories[replica].act(verb, pick)
            self.merge(replica)

    def turn(self, replica: Replica) -> None:
        slice = self.slices.setdefault(replica, Slice(replica))
        self.visible[replica] = not self.visible.get(replica, False)
        self.visibility.turn(slice, self.visible[replica])
        self.merge(replica)

    def merge(self, replica: Replica) -> None:
        slice, history = self.slices.get(replica), self.histories[replica]
        if slice is not None:
            transitions = slice.apply(history.changes[slice.horizon :], len(history.changes))
            self.visibility.change(replica, transitions, shown=self.visible[replica])

    def drop(self, replica: Replica) -> None:
        if replica in self.slices:
            if self.visible[replica]:
                self.turn(replica)
            self.visibility.release(replica)
            del self.slices[replica], self.visible[replica]

    def fill(self, replica: Replica, pick: int) -> None:
        """A slice that was not held comes whole."""
        self.drop(replica)
        for number in range(pick % 9):
            self.histories[replica].track(*picked(pick + number))
        built, index = Slice(replica), View()
        for old, new in built.apply(self.histories[replica].changes, 10**9):
            index.change(old, new)
        self.visibility.turn(Slice(replica), True)
        self.slices[replica], self.visible[replica] = built, True
        self.visibility.fill(built, index)

    def check(self) -> None:
        self.observer.look()
        here = self.entries()
        for replica, slice in self.slices.items():
            held = {identity(entry): entry for entry in slice.entries.values()}
            of_it = {name: here[name] for name in here if here[name][NAME:] == tuple(replica)}
            if replica in self.visibility:
                assert of_it.items() <= held.items()
            else:
                assert of_it == (held if self.visible[replica] else {})

    def entries(self) -> dict[Identity, Entry]:
        return {
            identity(entry): entry for topic in TOPICS for entry in self.view.all_entries(topic)
        }

    def finish(self) -> None:
        while self.visibility:
            self.visibility.step()
            self.check()
        expected = [
            entry
            for replica, slice in self.slices.items()
            if self.visible[replica]
            for entry in slice.entries.values()
        ]
        assert self.entries() == {identity(entry): entry for entry in expected}


ways = st.sampled_from(["turn", "turn", "step", "drop", "fill"])


@examples(200)
@given(sequences(st.tuples(verbs | ways, numbers)), st.sampled_from([1, 3, 1000]))
def test_slices_shown_and_hidden_in_steps_end_complete(history: list[Action], step: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(visibility_module, "STEP", step)
        shown = Shown()
        for verb, pick in history:
            shown.act(verb, pick)
            shown.check()
        shown.finish()


def slice_of(count: int, replica: Replica = LIVES[0]) -> Slice:
    slice = Slice(replica)
    for version in range(1, count + 1):
        slice.add((version, version, "room", f"k{version}", "{}", None, *replica))
    return slice


def test_step_moves_a_bounded_number_of_entries_of_all_slices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(visibility_module, "STEP", 10)
    view = View()
    visibility = Visibility(view)
    for replica in LIVES:
        visibility.turn(slice_of(25, replica), True)
    counts = [len(view.all_entries("room"))]
    while visibility:
        visibility.step()
        counts.append(len(view.all_entries("room")))
    assert counts == [10, 20, 30, 40, 50, 60, 70, 75]


def test_reversed_move_of_a_slice_continues_from_its_position(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(visibility_module, "STEP", 10)
    view, slice = View(), slice_of(100)
    visibility = Visibility(view)
    visibility.turn(slice, True)
    visibility.step()
    visibility.step()
    assert len(view.all_entries("room")) == 30
    visibility.turn(slice, False)
    steps = 0
    while visibility:
        visibility.step()
        steps += 1
    assert (steps, view.topics) == (3, {})


class Sizes(NodeObserver):
    """An observer that notes how much changes at a time, and who is left of whom."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def changed(self, topic: str, transitions: list[Any]) -> None:
        self.sizes.append(len(transitions))


def test_large_slice_is_hidden_and_shown_over_several_turns(
    cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visibility_module, "STEP", 10)
    two = cluster(2)
    for number in range(95):
        two[1].presence.track("room", f"user {number}", owner=None)
    two.settle()
    sizes = Sizes()
    two[0].node.observe(sizes)
    watch = two[0].presence.watch("room")
    two.partition([0], [1])
    two.settle()
    assert two[0].presence.count("room") == 0
    assert (max(sizes.sizes), sum(sizes.sizes)) == (10, 95)
    two.heal()
    two.settle()
    assert two[0].presence.count("room") == 95
    assert (max(sizes.sizes), sum(sizes.sizes)) == (10, 190)
    assert len(watch._take().joins) == 95


@pytest.mark.parametrize("seed", range(8))
def test_laws_hold_while_slices_are_partly_shown(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visibility_module, "STEP", 1 + seed % 5)
    Trial.from_seed(seed).run()


def test_no_stale_value_is_shown_while_a_slice_is_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(visibility_module, "STEP", 1)
    view, slice = View(), slice_of(3)
    visibility = Visibility(view)
    visibility.turn(slice, True)
    while visibility:
        visibility.step()
    visibility.turn(slice, False)
    update: Entry = (4, 1, "room", "k1", '{"n":1}', 1, *LIVES[0])
    visibility.change(LIVES[0], slice.apply([update], 4), shown=False)
    assert sorted(entry[VERSION] for entry in view.all_entries("room")) == [2, 3]
    visibility.turn(slice, True)
    while visibility:
        visibility.step()
    assert sorted(entry[VERSION] for entry in view.all_entries("room")) == [2, 3, 4]
