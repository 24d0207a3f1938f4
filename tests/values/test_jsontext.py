"""Only JSON objects get in, and what does not is named with its path.

All tests run with the standard module alone, and with the accelerator.
"""

import json
import math
from collections.abc import Iterator
from enum import IntEnum, StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.values.accelerator import Accelerator, installed
from adsum.values.jsontext import (
    _check,
    _is_valid,
    accelerate,
    encode_object,
    load,
)
from adsum.values.names import checked_name


@pytest.fixture(
    autouse=True,
    scope="module",
    params=[None, installed()],
    ids=["standard", "accelerated"],
)
def accelerator(request: pytest.FixtureRequest) -> Iterator[Accelerator | None]:
    accelerate(request.param)
    yield request.param
    accelerate(installed())


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), values))
def test_any_json_object_gets_in_unaltered(value: dict[str, Any]) -> None:
    text = encode_object(value, "meta", 10**6)
    assert load(text) == json.loads(text) == value
    assert text.isascii()


class Device(StrEnum):
    PHONE = "phone"


class Level(IntEnum):
    HIGH = 3


def test_enums_of_strings_and_numbers_are_encoded_by_value() -> None:
    text = encode_object({"device": Device.PHONE, "level": Level.HIGH}, "meta", 100)
    assert text == '{"device":"phone","level":3}'


@pytest.mark.parametrize(
    ("value", "error", "names"),
    [
        ([], TypeError, "meta must be a dict"),
        (None, TypeError, "meta must be a dict"),
        ("{}", TypeError, "meta must be a dict"),
        ({1: 2}, TypeError, "meta has the key 1"),
        ({"a": {None: 1}}, TypeError, "meta.a has the key None"),
        ({"a": (1, 2)}, TypeError, "meta.a is tuple (1, 2)"),
        ({"a": [1, {"b": {1}}]}, TypeError, "meta.a[1].b is set {1}"),
        ({"a": b"x"}, TypeError, "meta.a is bytes"),
        ({"a": object}, TypeError, "meta.a is type"),
        ({"a": math.nan}, ValueError, "meta.a is nan"),
        ({"a": [math.inf]}, ValueError, "meta.a[0] is inf"),
        ({"a": "x" * 200}, ValueError, "at most 100"),
    ],
)
def test_anything_else_is_refused_by_path(
    value: object, error: type[Exception], names: str
) -> None:
    with pytest.raises(error) as caught:
        encode_object(value, "meta", 100)
    assert names in str(caught.value)


def test_deep_and_endless_objects_are_refused() -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    with pytest.raises(ValueError, match="nested deeper than 32"):
        encode_object(endless, "meta", 10**6)


@pytest.mark.parametrize("name", ["", "x" * 11, "\ud800"])
def test_names_of_the_wrong_length_or_letters_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="topic"):
        checked_name(name, "topic", 10)


@pytest.mark.parametrize("name", [None, 1, b"room", ["room"]])
def test_names_that_are_no_strings_are_refused(name: object) -> None:
    with pytest.raises(TypeError, match="topic must be a str"):
        checked_name(name, "topic", 10)


def test_string_of_a_subclass_becomes_a_plain_string() -> None:
    assert type(checked_name(Device.PHONE, "key", 10)) is str
    assert checked_name(Device.PHONE, "key", 10) == "phone"


odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just((1,)),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    ),
)


@given(odd, st.integers(0, 40))
def test_object_is_refused_exactly_if_something_wrong_can_be_named(value: Any, depth: int) -> None:
    for _ in range(depth):
        value = [value]
    try:
        _check(value, "meta", 0)
    except (TypeError, ValueError):
        assert not _is_valid(value, 0)
    else:
        assert _is_valid(value, 0)


def test_keys_that_are_long_or_not_printable_are_named_by_a_short_path() -> None:
    value: Any = {1}
    for _ in range(30):
        value = {"\n" + "k" * 65_000: value}
    with pytest.raises(TypeError) as caught:
        encode_object(value, "meta", 100)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
    assert "'\\nkkk" in str(caught.value)


@pytest.mark.parametrize("text", ["1 2", "{}x", "[]]", " ", "", "\u00a01", "\f1", "{} \v", "NaN"])
def test_loading_text_that_is_not_exactly_one_value_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        load(text)


@pytest.mark.parametrize("text", [" 1", "1 ", "\t\r\n 1 \n\r\t"])
def test_loading_skips_whitespace_around_a_value(text: str) -> None:
    assert load(text) == 1


spaces = st.text(" \t\n\r", max_size=2)


def outcome(text: str, decode: Any) -> tuple[str, str]:
    """The value or the error of a text."""
    try:
        return "value", repr(decode(text))
    except ValueError as error:
        return "error", str(error)


@given(values, spaces, spaces)
def test_value_with_whitespace_around_it_is_decoded(value: Any, before: str, after: str) -> None:
    assert load(before + json.dumps(value) + after) == value


@given(values, st.text('[]{},:"1 -.eNa\u00e9\ufeff', max_size=4), st.integers(0, 20))
def test_damaged_text_is_refused_with_the_error_of_the_standard_decoder(
    value: Any, damage: str, at: int
) -> None:
    text = json.dumps(value)
    text = text[:at] + damage + text[at:]
    standard = outcome(text, json.JSONDecoder().decode)
    if "NaN" not in text and "Infinity" not in text:
        assert outcome(text, load) == standard


@pytest.mark.parametrize("text", ["NaN", " Infinity", "[-Infinity]", '{"a":NaN}'])
def test_number_that_is_not_finite_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not JSON"):
        load(text)
