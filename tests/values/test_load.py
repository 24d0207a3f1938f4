"""Decoding of JSON texts: the fast path accepts and refuses as the standard decoder does."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.values.jsontext import load

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
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
