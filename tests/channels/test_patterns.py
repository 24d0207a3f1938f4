"""Patterns of topics: what they match, and what is none."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.channels.wire.patterns import Pattern
from adsum.errors import ConfigurationError
from tests.support.effort import examples


@pytest.mark.parametrize(
    ("pattern", "topic", "params"),
    [
        ("lobby", "lobby", {}),
        ("lobby", "lobby2", None),
        ("lobby", "Lobby", None),
        ("room:{room}", "room:1", {"room": "1"}),
        ("room:{room}", "room:a b.c*/é😀", {"room": "a b.c*/é😀"}),
        ("room:{room}", "room:a\nb", {"room": "a\nb"}),
        ("room:{room}", "room:", None),
        ("room:{room}", "room:1:2", None),
        ("room:{room}", "xroom:1", None),
        ("room:{room}", "room:1\n", {"room": "1\n"}),
        ("{kind}:{id}", "a:b", {"kind": "a", "id": "b"}),
        ("{kind}:{id}", "a:", None),
        ("room:{room}:user:{user}", "room:1:user:2", {"room": "1", "user": "2"}),
        ("room:{room}:{user}", "room::2", None),
        ("a.c", "abc", None),
        ("a|b:{x}", "a", None),
        ("{any}", "everything", {"any": "everything"}),
    ],
)
def test_topic_parameter_matches_one_or_more_characters_except_colon(
    pattern: str, topic: str, params: dict[str, str] | None
) -> None:
    assert Pattern(pattern).match(topic) == params


parts = st.text(st.characters(exclude_characters="{}:*<>", exclude_categories=["Cs"])).map(
    str.strip
)
filled = st.text(st.characters(exclude_characters=":", exclude_categories=["Cs"]), min_size=1)


@examples(100)
@given(parts, filled, parts, filled)
def test_topic_pattern_round_trips_its_parameters(
    head: str, one: str, middle: str, two: str
) -> None:
    pattern = Pattern(f"{head}:{{one}}:{middle}:{{two}}")
    assert pattern.match(f"{head}:{one}:{middle}:{two}") == {"one": one, "two": two}


@pytest.mark.parametrize(
    "text",
    ["", "{", "}", "room:{", "room:{}", "{a}:{a}", "{a b}", "{{a}}", "{1}", "{a-b}", "}{"]
    # A parameter is a whole part: what is cut at other characters takes long to match.
    + ["a-{b}", "{a}-b", "{a}-{b}", "{a}{b}", "room:{a}-{b}:{c}"]
    # What other routers mean by a parameter would be a text that matches itself alone.
    + [
        "room:*",
        "*",
        "room*",
        "room:**",
        "room:<room>",
        "<int:room>",
        "room:{room:int}",
        "room:{*a}",
    ]
    + ["room: {room}", "room :1", " room", "room:{ room }", "room:1\n"],
)
def test_malformed_topic_pattern_is_refused_with_a_suggestion(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Pattern(text)
    assert f"topic={text!r}" in str(caught.value)
    assert "'room:{room}'" in str(caught.value)


@pytest.mark.parametrize("text", ["room:*", "room:<room>", "room:{room:int}"])
def test_topic_parameter_syntax_of_another_router_is_refused_with_a_suggestion(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"write 'room:\{name\}' for every room"):
        Pattern(text)


@pytest.mark.parametrize("text", [None, 5, b"room", ["room"], Pattern("room")])
def test_topic_pattern_that_is_no_string_is_refused(text: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"topic=.*: must be a str such as"):
        Pattern(text)


@pytest.mark.parametrize("text", ["a->b", "a<b>c", "room::1", "room:", "room:{class}", "a b"])
def test_unusual_topic_pattern_is_accepted(text: str) -> None:
    assert Pattern(text).text == text


@pytest.mark.parametrize(
    ("wide", "narrow", "covers"),
    [
        ("room:{a}", "room:{b}", True),
        ("room:{a}", "room:lobby", True),
        ("room:lobby", "room:{a}", False),
        ("{a}:{b}", "room:{a}", True),
        ("room:{a}", "room:{a}:{b}", False),
        ("room:{a}", "hall:{a}", False),
        ("room:{a}", "room:", False),
        ("lobby", "lobby", True),
    ],
)
def test_topic_pattern_that_covers_another_is_detected(
    wide: str, narrow: str, covers: bool
) -> None:
    assert Pattern(wide).covers(Pattern(narrow)) is covers


def test_heartbeat_topic_phoenix_is_reserved() -> None:
    with pytest.raises(ConfigurationError, match="phoenix"):
        Pattern("phoenix")
