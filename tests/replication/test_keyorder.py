"""Pages of keys equal slices of the sorted keys, and cost little before anything is sorted."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.replication import keyorder
from adsum.replication.keyorder import RANGE, KeyOrder
from tests.support.effort import examples

names = st.text("abé\U0001f600", min_size=1, max_size=4)
steps = st.tuples(
    st.sampled_from(["add", "discard", "page"]), names | st.just(""), st.integers(1, 9)
)


@pytest.fixture(autouse=True, scope="module")
def small_ranges() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keyorder, "RANGE", 4)
        patch.setattr(keyorder, "_STEP", 2)
        yield


@examples(300)
@given(st.lists(names, max_size=60, unique=True), st.lists(steps, max_size=40))
def test_page_equals_a_slice_of_the_sorted_keys(
    first: list[str], history: list[tuple[str, str, int]]
) -> None:
    keys = dict.fromkeys(first)
    order = KeyOrder(keys)
    for verb, name, limit in history:
        if verb == "add" and name and name not in keys:
            keys[name] = None
            order.add(name)
        elif verb == "discard" and name in keys:
            del keys[name]
            order.discard(name)
        elif verb == "page":
            if order.outgrown:
                order = KeyOrder(keys)
            assert order.after(name, limit) == [key for key in sorted(keys) if key > name][:limit]


def test_growth_of_a_range_asks_for_another_division() -> None:
    keys = dict.fromkeys(["a", "b"])
    order = KeyOrder(keys)
    assert order.after("", 1) == ["a"]
    for number in range(20):
        assert order.outgrown == (len(keys) > 4 * 4)
        keys[f"c{number}"] = None
        order.add(f"c{number}")


class Counted(dict[str, Any]):
    """Keys that count how many of them were visited."""

    visited = 0

    def __iter__(self) -> Iterator[str]:
        for key in super().__iter__():
            self.visited += 1
            yield key


def test_pages_of_a_large_topic_visit_its_keys_seldom_and_sort_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keyorder, "RANGE", RANGE)
    monkeypatch.setattr(keyorder, "_STEP", 61)
    # In an order in which neighbours are far from each other.
    keys = Counted({f"user:{number * 7919 % 100_003:06}": None for number in range(100_000)})
    order = KeyOrder(keys)
    assert order.after("", 100) == sorted(keys.keys())[:100]
    assert keys.visited <= 3 * len(keys)  # the sample, the range, and the expected result here
    sorted_keys = [len(held) for held in order._ranges if held is not None]
    assert len(sorted_keys) == 1
    assert sorted_keys[0] < 2 * RANGE
    keys.visited = 0
    # The first range answers the pages in it without another visit.
    assert order.after("user:001000", 100)[0] == "user:001001"
    assert keys.visited == 0
    assert len(order.after("", 5000)) == 5000
    assert sum(len(held) for held in order._ranges if held is not None) < 5000 + 3 * RANGE
