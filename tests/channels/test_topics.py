"""Patterns of topics: what they match, and what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.channels.topics import Pattern
from adsum.errors import ConfigurationError
from tests.effort import examples


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
def test_a_parameter_is_one_or_more_characters_other_than_a_colon(
    pattern: str, topic: str, params: dict[str, str] | None
) -> None:
    assert Pattern(pattern).match(topic) == params


parts = st.text(st.characters(exclude_characters="{}:", exclude_categories=["Cs"]))
filled = st.text(st.characters(exclude_characters=":", exclude_categories=["Cs"]), min_size=1)


@examples(100)
@given(parts, filled, parts, filled)
def test_what_is_put_into_a_pattern_comes_out_of_the_topic(
    head: str, one: str, middle: str, two: str
) -> None:
    pattern = Pattern(f"{head}:{{one}}:{middle}:{{two}}")
    assert pattern.match(f"{head}:{one}:{middle}:{two}") == {"one": one, "two": two}


@pytest.mark.parametrize(
    "text",
    ["", "{", "}", "room:{", "room:{}", "{a}:{a}", "{a b}", "{{a}}", "{1}", "{a-b}", "}{"]
    # A parameter is a whole part: what is cut at other characters takes long to match.
    + ["a-{b}", "{a}-b", "{a}-{b}", "{a}{b}", "room:{a}-{b}:{c}"],
)
def test_what_is_no_pattern_is_refused_with_what_would_be(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Pattern(text)
    assert f"topic={text!r}" in str(caught.value)
    assert "'room:{room}'" in str(caught.value)


def test_the_topic_of_heartbeats_is_nobodys() -> None:
    with pytest.raises(ConfigurationError, match="phoenix"):
        Pattern("phoenix")
