"""The strategies: fair shares, spread evenly."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.services.instance import Instance
from adsum.services.pick import STRATEGIES, LeastUsed, RoundRobin, Strategy, Weighted
from adsum.services.slot import Slot

NONE = frozenset[str]()


def slots(*weights: float) -> list[Slot]:
    return [
        Slot(Instance("users", f"h{n}", "n1", (), weight, id=str(n)))
        for n, weight in enumerate(weights)
    ]


def picked(strategy: Strategy, count: int, excluded: frozenset[str] = NONE) -> list[str]:
    found = [strategy.pick(excluded) for _ in range(count)]
    return [slot.instance.id for slot in found if slot is not None]


def test_round_robin_picks_each_in_turn() -> None:
    strategy = RoundRobin(slots(1, 1, 1))
    assert picked(strategy, 4) == ["0", "1", "2", "0"]
    assert picked(strategy, 4, frozenset("2")) == ["1", "0", "1", "0"]
    assert picked(strategy, 1) == ["2"]


def test_least_used_picks_the_fewest_uses_and_rotates_equals() -> None:
    all_slots = slots(1, 1, 1, 1)
    all_slots[1].uses = 1
    strategy = LeastUsed(all_slots)
    assert picked(strategy, 6) == ["0", "2", "3", "0", "2", "3"]
    for slot in all_slots:
        slot.uses += 1
    assert picked(strategy, 3) == ["0", "2", "3"]
    assert picked(strategy, 2, frozenset("023")) == ["1", "1"]


def test_weights_are_shares_spread_evenly() -> None:
    strategy = Weighted(slots(2, 1, 1))
    sequence = picked(strategy, 400)
    assert Counter(sequence) == {"0": 200, "1": 100, "2": 100}
    assert "000" not in "".join(sequence)


def test_changes_of_the_candidates_keep_the_shares() -> None:
    all_slots, sequence = slots(3, 1), list[str]()
    for _ in range(400):
        sequence += picked(Weighted(all_slots), 1)
    assert Counter(sequence) == {"0": 300, "1": 100}


def test_new_or_returning_slot_does_not_catch_up() -> None:
    new, old, *others = slots(1, 1, 1, 1)
    picked(Weighted([old, *others]), 3)
    picked(Weighted(others), 100)
    sequence = picked(Weighted([new, old, *others]), 40)
    assert all(abs(count - 10) <= 1 for count in Counter(sequence).values())


@given(st.lists(st.sampled_from([0.001, 0.5, 1.0, 3.0, 10.0, 1000.0]), min_size=1, max_size=6))
def test_each_share_is_within_one_pick_of_its_weight(weights: list[float]) -> None:
    strategy, total = Weighted(slots(*weights)), sum(weights)
    counted = Counter(picked(strategy, 300))
    for number, weight in enumerate(weights):
        assert abs(counted[str(number)] - 300 * weight / total) <= len(weights)


@pytest.mark.parametrize("name", STRATEGIES)
@given(excluded=st.frozensets(st.sampled_from("01234")), count=st.integers(0, 5))
def test_excluded_slots_are_kept_for_later(name: str, excluded: frozenset[str], count: int) -> None:
    strategy = STRATEGIES[name](slots(*[1.0] * count))
    everyone = {str(number) for number in range(count)}
    assert set(picked(strategy, 10, excluded)) == everyone - excluded
    assert set(picked(strategy, 10)) == everyone


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_slots_give_none(name: str) -> None:
    assert STRATEGIES[name]([]).pick(NONE) is None
