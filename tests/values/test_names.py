"""The check of a place refuses exactly the topics and keys that the single checks refuse."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from adsum.values.limits import MAX_NAME
from adsum.values.names import RESERVED, checked_name, checked_place, checked_topic


class Name(str):
    """A str of a subclass."""

    __slots__ = ()


#: Names at every bound, and values that are no names.
NAMES = (
    "",
    "room",
    "\ud800",
    RESERVED,
    f"{RESERVED}room",
    "\x01",
    "x" * MAX_NAME,
    "x" * (MAX_NAME + 1),
    "\u00e9" * MAX_NAME,
    "\u00e9" * (MAX_NAME + 1),
    Name("room"),
    Name(),
    b"room",
    None,
    5,
)


def result(check: object, *names: object) -> object:
    """The names that a check returns with their types, or its error."""
    assert callable(check)
    try:
        checked = check(*names)
    except (TypeError, ValueError) as error:
        return type(error), str(error)
    return [(type(one), one) for one in checked]


def one_by_one(topic: object, key: object) -> tuple[str, str]:
    return checked_topic(topic), checked_name(key, "key", MAX_NAME)


def test_check_of_a_place_equals_the_checks_of_topic_and_key() -> None:
    for topic, key in product(NAMES, NAMES):
        assert result(checked_place, topic, key) == result(one_by_one, topic, key)


@given(st.text(max_size=3), st.text(max_size=3))
def test_check_of_any_place_equals_the_checks_of_topic_and_key(topic: str, key: str) -> None:
    assert result(checked_place, topic, key) == result(one_by_one, topic, key)
