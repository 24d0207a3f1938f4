"""Quoted texts: printable, on one line, short, and made with bounded work."""

import random
from typing import Any

import pytest

from adsum.quoting import LIMIT, printable, quoted

NASTY = [
    "",
    "plain",
    "it's",
    "both ' and \"",
    "line\nbreak\r\n\x1b[31m",
    "\u2028\u2029\u202e\ufeff\x85",
    "\ud800",
    "\U000e0001" * 500,
    "'" * 500,
    "\\" * 500,
    "x" * 65_536,
]


class Text(str):
    """A text whose own methods must not be called."""

    def __repr__(self) -> str:
        raise AssertionError

    def __getitem__(self, _: Any) -> str:
        raise AssertionError

    def __str__(self) -> str:
        return "\n"


class Loud:
    def __repr__(self) -> str:
        return "\n" * 10_000


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("limit", [10, 40, LIMIT, 500])
@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_any_text_is_shown_printable_and_short(text: str, limit: int) -> None:
    for value in (text, Text(text), text.encode("utf-8", "surrogatepass")):
        shown = quoted(value, limit)
        assert shown.isprintable()
        assert len(shown) <= limit


def test_short_text_is_shown_as_its_repr() -> None:
    for text in NASTY[:7]:
        assert quoted(text) == repr(text)


def test_truncated_text_ends_with_a_quote_and_an_ellipsis() -> None:
    assert quoted("x" * 200, 20) == "'" + "x" * 15 + "'..."
    assert quoted("x" * 18, 20) == "'" + "x" * 18 + "'"


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        1.5,
        10**6000,
        -(10**6000),
        {"k\n" * 50_000: ["v\x1b" * 50_000] * 1000},
        [[[[[[[[1]]]]]]]],
        {str(number): number for number in range(10_000)},
        Loud(),
        [Loud()],
        Broken(),
        b"\x00\xff" * 50_000,
        ValueError("\n" * 1000),
    ],
    ids=range(13),
)
def test_other_values_are_shown_printable_and_short(value: object) -> None:
    shown = quoted(value)
    assert shown.isprintable()
    assert 0 < len(shown) <= LIMIT


def test_random_texts_are_shown_printable_and_short() -> None:
    random_ = random.Random(7)
    for _ in range(2000):
        size = random_.choice([1, 5, 50, 99, 100, 101, 300])
        ceiling = random_.choice([0x80, 0x800, 0x3000, 0x110000])
        text = "".join(chr(random_.randrange(ceiling)) for _ in range(size))
        shown = quoted(text)
        assert shown.isprintable()
        assert len(shown) <= LIMIT
        assert printable(text, LIMIT) in (text, shown)
