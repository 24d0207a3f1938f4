"""The check of many JSON objects accepts what the check of each accepts, with the same errors."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.values.jsontext import check_object, encode_object
from adsum.values.plainjson import _are_plain, check_objects
from tests.support.effort import examples

LIMIT = 60
scalar = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6)
)
flat = st.dictionaries(st.text(max_size=4), scalar, max_size=3)
nested = st.dictionaries(st.text(max_size=4), flat | st.lists(scalar, max_size=2), max_size=2)
encoded = (flat | flat | nested).map(lambda value: encode_object(value, "meta", 10**6))
#: Texts that are nearly objects, or parts of objects that are whole when they are joined.
odd: st.SearchStrategy[object] = st.sampled_from(
    [
        "",
        "{}",
        "{ }",
        "{}\n",
        "{}\n{}",
        "{},{}",
        '{"a":1',
        '"b":2}',
        '{"a":1},{"b":[{}',
        "{}]}",
        '{"a":"',
        '"}',
        '{"a":"\\ud800"}',
        '{"a":"\\x"}',
        '{"a":"\x7f"}',
        '{"a":"\x1f"}',
        '{"a":"\u00e9"}',
        '{"a":01}',
        '{"a":-0}',
        '{"a":1.}',
        '{"a":.5}',
        '{"a":1e9}',
        '{"a":1e999}',
        '{"a":1E+99}',
        '{"a":NaN}',
        '{"a":Infinity}',
        '{"a":1,}',
        '{"a":1,"a":2}',
        "{a:1}",
        '{"a" :1}',
        '{"a":"' + "x" * (LIMIT - 8) + '"}',
        '{"a":"' + "x" * (LIMIT - 7) + '"}',
        '{"a":' + "9" * 18 + "}",
        '{"a":' + "9" * 5000 + "}",
        '{"a":' * 40 + "1" + "}" * 40,
        "[]",
        "null",
        None,
        5,
        {},
        ["{}"],
    ]
)
#: Characters that change the meaning of a text when they are put into it.
characters = st.sampled_from([*'{}[]":,\\\n\t 01e-.u', "\x00", "\u00e9", "\u0660", "true", "NaN"])


@st.composite
def columns(draw: st.DrawFn) -> list[object]:
    """Texts, some of them altered in a few places."""
    texts: list[object] = draw(st.lists(encoded | encoded | odd, max_size=6))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, max(0, len(texts) - 1)))
        text = texts[at] if texts else None
        if isinstance(text, str):
            start = draw(st.integers(0, len(text)))
            stop = start + draw(st.integers(0, 1))
            texts[at] = text[:start] + draw(characters | st.just("")) + text[stop:]
    return texts


def one_by_one(texts: list[object], field: str, limit: int) -> None:
    for text in texts:
        check_object(text, field, limit)


def error_of(check: object, texts: list[object]) -> object:
    assert callable(check)
    try:
        check(texts, "meta", LIMIT)
    except (TypeError, ValueError, RecursionError) as error:
        return type(error), str(error)
    return None


@examples(400)
@given(columns())
def test_check_of_many_objects_equals_the_checks_of_each(texts: list[object]) -> None:
    assert error_of(check_objects, texts) == error_of(one_by_one, texts)


@examples(400)
@given(columns())
def test_plain_objects_are_compact_json(texts: list[object]) -> None:
    """The expression refuses whatever the standard decoder reads in another way."""
    if _are_plain(texts, 10**6):
        for text in texts:
            assert isinstance(text, str)
            assert text.isascii()
            value = json.loads(text)
            assert isinstance(value, dict)
            assert not any(isinstance(item, dict | list) for item in value.values())


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"device": "phone", "online_at": 1_700_000_000, "typing": False, "room": None},
        {"name": 'Zo\u00eb "Z" \\ \U0001f600', "at": 1_700_000_000.123, "x": -1.5e-07, "n": -1},
        {"": ""},
    ],
)
def test_usual_metas_are_plain(value: dict[str, object]) -> None:
    text = encode_object(value, "meta", 10**6)
    assert _are_plain([text], len(text))
    assert _are_plain([text] * 100, len(text))
    assert not _are_plain([text] * 100, len(text) - 1)
