"""Handshakes under way and dials that wait, in `BusDials` itself: places, limits, deadlines."""

import pytest

from adsum.bus.busdials import BusDials, address_of, life_of
from adsum.bus.limits import DIAL_PATIENCE, DIAL_TIMEOUT, MAX_DIALS, MAX_GREETINGS
from adsum.replication.limits import MAX_MEMBERS
from adsum.transport.contract import NodeIdentity
from adsum.transport.handshake import Handshake

_SECRET = b"a secret of a cluster"
_NOW = 1000.0


class Numbers:
    """Different bytes at each call, and others than those of the tests."""

    def __init__(self) -> None:
        self._next = 10**6

    def __call__(self, size: int) -> bytes:
        self._next += 1
        return self._next.to_bytes(size, "big")


def made() -> BusDials:
    identity = NodeIdentity("test", "a", 1, ())

    def handshake(dialling: bool) -> Handshake:
        return Handshake(identity, dialling=dialling, secret=_SECRET, protected=True)

    return BusDials(handshake, Numbers())


def life(number: int) -> bytes:
    return number.to_bytes(8, "big")


def heard(count: int) -> tuple[BusDials, list[bytes]]:
    """Dials that wait, to lives that were heard."""
    dials, lives = made(), [life(number) for number in range(count)]
    for each in lives:
        dials.note(each, _NOW)
        assert dials.dial(each)
    return dials, lives


def begun(dials: BusDials, now: float = _NOW) -> list[bytes]:
    return [greeting.life for greeting in dials.begin(now)]


def test_dials_begin_in_order_as_places_are_free() -> None:
    dials, lives = heard(3 * MAX_DIALS)
    assert begun(dials) == lives[:MAX_DIALS]
    assert dials.wake_at == _NOW + DIAL_PATIENCE
    assert begun(dials, _NOW + DIAL_PATIENCE / 2) == []
    assert begun(dials, dials.wake_at) == lives[MAX_DIALS : 2 * MAX_DIALS]
    assert begun(dials, dials.wake_at) == lives[2 * MAX_DIALS :]
    assert dials.wake_at == _NOW + DIAL_TIMEOUT
    assert dials.expire(dials.wake_at) == [address_of(each) for each in lives[:MAX_DIALS]]


def test_end_of_a_handshake_frees_its_place() -> None:
    dials, _ = heard(MAX_DIALS + 1)
    first, *_ = dials.begin(_NOW)
    assert dials.end(first)
    assert not dials.end(first)
    assert begun(dials) == [life(MAX_DIALS)]


def test_dial_to_a_life_with_a_dial_begins_no_second_one() -> None:
    dials = made()
    dials.dial(life(1))
    dials.dial(life(1))
    assert begun(dials) == [life(1)]
    dials.dial(life(1))
    assert begun(dials) == []
    assert dials.expire(_NOW + DIAL_TIMEOUT) == [address_of(life(1))]
    assert not dials.meets(life(1))


def test_oldest_handshake_that_others_began_makes_room_for_one_more() -> None:
    dials = made()
    dials.dial(life(1))
    assert begun(dials) == [life(1)]
    for number in range(MAX_GREETINGS + 1):
        dials.answer(life(number), life(2 + number), _NOW + number / 1e3)
    assert dials.get(life(0)) is None
    assert not dials.meets(life(2))
    assert all(dials.get(life(number)) for number in range(1, MAX_GREETINGS + 1))
    assert dials.dial_to(life(1))


def test_all_members_of_the_largest_cluster_may_dial_a_newcomer_at_once() -> None:
    assert MAX_GREETINGS >= MAX_MEMBERS


def test_life_is_met_until_the_last_of_its_handshakes_ends() -> None:
    dials = made()
    first, second = dials.answer(life(1), life(7), _NOW), dials.answer(life(2), life(7), _NOW + 1)
    assert not dials.dial_to(life(7))
    dials.end(first)
    assert dials.meets(life(7))
    dials.end(second)
    assert not dials.meets(life(7))


def test_handshakes_of_both_ends_expire_each_at_its_time() -> None:
    dials = made()
    answered = dials.answer(life(1), life(7), _NOW)
    dials.dial(life(8))
    begun(dials, _NOW + 1)
    assert dials.wake_at == answered.until == _NOW + DIAL_TIMEOUT
    assert dials.expire(dials.wake_at) == []
    assert not dials.meets(life(7))
    assert dials.wake_at == _NOW + 1 + DIAL_TIMEOUT
    assert dials.expire(dials.wake_at) == [address_of(life(8))]
    assert dials.wake_at == float("inf")


def test_loss_of_the_bus_forgets_everything() -> None:
    dials, lives = heard(MAX_DIALS + 2)
    begun(dials)
    dials.answer(life(1), life(100), _NOW)
    assert dials.clear() == [address_of(each) for each in lives]
    assert dials.clear() == []
    assert dials.wake_at == float("inf")
    assert begun(dials) == []
    assert not dials.meets(life(100))


@pytest.mark.parametrize("number", [10, 255, 2**64 - 1])
def test_life_has_one_address(number: int) -> None:
    address = address_of(life(number))
    assert life_of(address) == life(number)
    assert life_of(address.replace("bus:", "bus: ")) is None
    assert life_of(address.upper().replace("BUS:", "bus:")) is None
