"""Whom to dial when."""

from itertools import pairwise
from random import Random

import pytest

from adsum.replication.dialler import MOST_DIALS, Dialler
from adsum.replication.timing import Timing

TIMING = Timing(redial_first=0.1, redial_most=3.0, redial_refused=30.0)


@pytest.fixture
def dialler() -> Dialler:
    return Dialler(TIMING, Random(1))


def gaps(dialler: Dialler, address: str, *, refused: bool, rounds: int) -> list[float]:
    now, times = 0.0, list[float]()
    while len(times) <= rounds:
        now = max(now, dialler.next_at)
        if dialler.due(now, {}):
            times.append(now)
            dialler.failed(address, refused, now)
    return [later - earlier for earlier, later in pairwise(times)]


def test_seed_is_dialled_at_once_and_never_twice_in_parallel(dialler: Dialler) -> None:
    dialler.add_seed("a:1", 0.0, lasting=True)
    assert dialler.due(0.0, {}) == ["a:1"]
    assert dialler.due(100.0, {}) == []


def test_redial_backoff_doubles_up_to_a_limit_with_jitter(dialler: Dialler) -> None:
    dialler.add_seed("a:1", 0.0, lasting=True)
    waits = gaps(dialler, "a:1", refused=False, rounds=12)
    for failures, wait in enumerate(waits):
        most = min(3.0, 0.1 * 2**failures)
        assert most / 2 <= wait <= most
    assert len(set(waits)) == len(waits)


def test_dial_refused_by_a_gone_process_is_retried_rarely(dialler: Dialler) -> None:
    dialler.add_peer("ann", ("a:1",), 0.0)
    assert max(gaps(dialler, "a:1", refused=True, rounds=15)) > 15.0


def test_configured_seed_is_redialled_often_after_refusal(dialler: Dialler) -> None:
    dialler.add_seed("a:1", 0.0, lasting=True)
    assert max(gaps(dialler, "a:1", refused=True, rounds=15)) <= 3.0


def test_discovered_seed_is_dropped_after_refusal(dialler: Dialler) -> None:
    dialler.add_seed("unix:/gone", 0.0, lasting=False)
    dialler.due(0.0, {})
    dialler.failed("unix:/gone", True, 0.0)
    assert dialler.due(100.0, {}) == []


def test_linked_peer_is_not_dialled(dialler: Dialler) -> None:
    dialler.add_seed("a:1", 0.0, lasting=True)
    dialler.due(0.0, {})
    assert dialler.answered("a:1", "ann", 0.0) is None
    assert dialler.due(100.0, {"ann": None}) == []
    dialler.hurry("ann", 101.0)
    assert dialler.due(101.0, {}) == ["a:1"]


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "on a carrier"])
def test_seed_is_dialled_beside_a_link_over_a_carrier_only_if_it_leads_to_a_direct_one(
    dialler: Dialler, direct: bool
) -> None:
    dialler.add_seed("a:1", 0.0, lasting=True, direct=direct)
    dialler.due(0.0, {})
    dialler.answered("a:1", "ann", 0.0)
    dialler.hurry("ann", 1.0)
    assert dialler.due(1.0, {"ann": None}, {"ann": None}) == []
    dialler.hurry("ann", 2.0)
    assert dialler.due(2.0, {"ann": None}, {}) == (["a:1"] if direct else [])


def test_peer_is_not_dialled_beside_a_link_over_a_carrier(dialler: Dialler) -> None:
    dialler.add_peer("ann", ("a:1",), 0.0)
    assert dialler.due(0.0, {"ann": None}, {}) == []
    dialler.hurry("ann", 1.0)
    assert dialler.due(1.0, {}, {}) == ["a:1"]


def test_dial_tries_every_address_of_a_peer_in_turn(dialler: Dialler) -> None:
    dialler.add_peer("ann", ("unix:/a", "a:1", "a:2"), 0.0)
    tried = []
    for _ in range(3):
        [address] = dialler.due(0.0, {})
        tried.append(address)
        dialler.failed(address, refused=False, now=0.0)
    assert tried == ["unix:/a", "a:1", "a:2"]
    assert dialler.due(0.0, {}) == []


def test_peer_is_gone_only_if_every_address_refuses(dialler: Dialler) -> None:
    dialler.add_peer("ann", ("unix:/a", "a:1"), 0.0)
    dialler.due(0.0, {})
    assert dialler.failed("unix:/a", refused=True, now=0.0) is None
    dialler.due(0.0, {})
    assert dialler.failed("a:1", refused=True, now=0.0) == "ann"
    dialler.hurry("ann", 1.0)
    dialler.due(1.0, {})
    dialler.failed("unix:/a", refused=True, now=1.0)
    dialler.due(1.0, {})
    assert dialler.failed("a:1", refused=False, now=1.0) is None


def test_forgotten_peer_is_not_redialled(dialler: Dialler) -> None:
    dialler.add_peer("ann", ("a:1",), 0.0)
    dialler.forget_peer("ann")
    assert dialler.due(10.0, {}) == []


def test_next_at_is_the_earliest_due_dial(dialler: Dialler) -> None:
    dialler.add_peer("ann", ("a:1",), 5.0)
    dialler.add_peer("bob", ("b:1",), 3.0)
    assert dialler.next_at == 3.0
    assert dialler.due(2.9, {}) == []
    assert dialler.due(3.0, {}) == ["b:1"]
    assert dialler.next_at == 5.0


def test_dial_answered_by_another_identity_marks_the_peer_gone(dialler: Dialler) -> None:
    dialler.add_peer("ann", ("a:1",), 0.0)
    dialler.due(0.0, {})
    assert dialler.answered("a:1", "bob", 0.0) == "ann"
    assert dialler.due(100.0, {"bob": None}) == ["a:1"]


def test_short_lived_links_are_redialled_with_backoff(
    dialler: Dialler,
) -> None:
    dialler.add_peer("ann", ("a:1",), 0.0)
    now = 0.0
    for _ in range(12):
        assert dialler.due(now, {}) == ["a:1"]
        dialler.answered("a:1", "ann", now)
        dialler.wait("ann", now)
        assert dialler.next_at - now <= 3.0
        now = dialler.next_at


def test_parallel_dials_are_limited_and_the_rest_follow(dialler: Dialler) -> None:
    for number in range(3 * MOST_DIALS):
        dialler.add_peer(f"ghost {number}", (f"a:{number}",), 0.0)
    first = dialler.due(0.0, {})
    assert len(first) == MOST_DIALS
    assert dialler.next_at == float("inf")  # until one of them has ended
    assert dialler.due(0.05, {}) == []
    for address in first[:10]:
        dialler.failed(address, False, 0.1)
    assert dialler.next_at == 0.1
    assert len(dialler.due(0.1, {})) == 10


def test_dial_limit_starves_no_peer_when_many_are_silent(dialler: Dialler) -> None:
    names = [f"a:{number}" for number in range(5 * MOST_DIALS)]
    for address in names:
        dialler.add_peer(f"node {address}", (address,), 0.0)
    now, seen = 0.0, set[str]()
    while now < 60.0:
        dialled = dialler.due(now, {})
        seen.update(dialled)
        now += 3.0  # a dial that gets no answer takes as long as that
        for address in dialled:
            dialler.failed(address, False, now)
    assert seen == set(names)
