"""An accelerator changes no result: any text, value and error is the same without it."""

import dataclasses
from collections.abc import Callable, Iterator
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adsum.channels.wire.frames import V1, V2
from adsum.errors import ProtocolError
from adsum.values.accelerator import installed
from adsum.values.jsontext import accelerate, check_object, encode_object, load
from tests.support.effort import examples


@pytest.fixture(autouse=True, scope="module")
def _accelerator_as_before() -> Iterator[None]:
    yield
    accelerate(installed())


class Device(StrEnum):
    PHONE = "phone"


class Level(IntEnum):
    HIGH = 3


def both_ways(call: Callable[[], object]) -> None:
    """Assert that a call returns or raises the same with and without the accelerator."""
    outcomes = []
    for way in (None, installed()):
        accelerate(way)
        try:
            # By repr, which tells -0.0 from 0.0, 1 from True and 1.0, and orders of keys apart.
            outcomes.append(repr(call()))
        except Exception as error:
            outcomes.append(f"{type(error)} {error}")
    assert outcomes[0] == outcomes[1]


class Text(str):
    """A string of a subclass."""


class Items(dict[Any, Any]):
    """A dict of a subclass."""


@dataclasses.dataclass
class Point:
    x: int = 1


characters = st.characters(codec=None)  # lone surrogates included
texts = st.text(characters) | st.text(st.characters(max_codepoint=0x100))
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**80), 2**80)
    | st.floats()
    | texts
    | texts.map(Text)
)
others = st.sampled_from(
    [Point(), datetime(2026, 1, 1), Device.PHONE, Level.HIGH, b"x", memoryview(b"x"), (1,), {1}]
)
anything = st.recursive(
    scalars | others,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(texts | st.integers() | st.booleans(), inner, max_size=3)
        | st.dictionaries(texts.map(Text), inner, max_size=3).map(Items)
    ),
    max_leaves=8,
)
flat = st.dictionaries(texts, st.none() | st.booleans() | st.integers() | texts, max_size=4)


@examples(500)
@given(flat | st.dictionaries(texts, anything, max_size=4) | anything, st.sampled_from([60, 10**6]))
@example({"a": "\x7f", "b": 2**64, "c": "\ud800"}, 10**6)
@example({"a": 1e16, "b": -0.0, "c": 1e-5}, 10**6)
def test_any_value_is_encoded_or_refused_alike_with_an_accelerator(value: Any, limit: int) -> None:
    both_ways(lambda: encode_object(value, "meta", limit))


def test_each_character_is_escaped_alike_with_an_accelerator() -> None:
    for character in map(chr, range(0x180)):
        both_ways(lambda: encode_object({f"k{character}": character}, "meta", 100))  # noqa: B023


numbers = st.from_regex(r"-?[0-9]{1,25}(\.[0-9]{0,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
strings = st.from_regex(r'"([^"]|\\.|\\u[0-9a-fA-F]{4}){0,6}"', fullmatch=True)
words = st.sampled_from(["true", "null", "NaN", "Infinity", "-Infinity", "1e400", "-0", "{}", "[]"])
json_texts = st.recursive(
    numbers | strings | words,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: "[" + ", ".join(parts) + "]")
        | st.lists(st.tuples(strings, inner).map(":".join), max_size=3).map(
            lambda parts: "{" + ",".join(parts) + "}"
        )
    ),
    max_leaves=8,
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A JSON text, or one with a character replaced or inserted."""
    text = draw(json_texts)
    place = draw(st.integers(0, len(text)))
    inserted = draw(st.sampled_from(["", "", *'{}[]",:\\ \n\x00\x7f0.-é']))
    broken: str = text[:place] + inserted + text[place + draw(st.integers(0, 1)) :]
    return broken


@examples(1000)
@given(damaged() | st.text(characters, max_size=20))
@example('{"a":1,"b":2,"a":3}')
@example(f'{{"a":{2**64},"b":-{2**64},"c":{10**400}}}')
@example('{"a":' + "9" * 4301 + "}")
@example('{"a":1e400}')
@example('{"a":"\\ud800"}')
@example('{"a":"\\ud83d\\ude00","b":"\\/"}')
@example(' {"a":1}')
@example('{"a":1} ')
@example('{"a":1}}')
@example("{ }")
@example("\ufeff{}")
@example('{"a":' * 33 + "1" + "}" * 33)
@example("[" * 100_000)
def test_any_text_is_decoded_or_refused_alike_with_an_accelerator(text: str) -> None:
    both_ways(lambda: load(text))
    both_ways(lambda: check_object(text, "meta", 10_000))


@pytest.mark.skipif(installed() is None, reason="msgspec is not installed")
def test_refused_texts_and_values_are_left_to_the_standard_module() -> None:
    accelerator = installed()
    assert accelerator is not None
    for text in ('"\\ud800"', "1e400", "[" * 100_000, "NaN", ""):
        with pytest.raises(accelerator.refusals):
            accelerator.decode(text)
    with pytest.raises(accelerator.refusals):
        accelerator.encode({"a": "\ud800"})


def test_frames_of_clients_are_refused_alike_with_an_accelerator() -> None:
    for text in (
        '["1","2","room","shout",{"a":1e400}]',
        '["1","2","room","shout",NaN]',
        '["1","2","room","shout",{}',
        "[" * 100_000,
    ):
        both_ways(lambda: V2.decode(text))  # noqa: B023
        both_ways(lambda: V1.decode(text))  # noqa: B023
    with pytest.raises(ProtocolError, match="nested too deeply"):
        V2.decode("[" * 100_000)
