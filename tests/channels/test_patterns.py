"""Patterns of topics: what they match, and what is none."""

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.channels.wire.patterns import MAX_TOPIC, Pattern
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


@pytest.mark.parametrize(
    ("pattern", "topic", "params"),
    [
        ("realtime:{name...}", "realtime:1", {"name": "1"}),
        ("realtime:{name...}", "realtime:room:1:", {"name": "room:1:"}),
        ("realtime:{name...}", "realtime::", {"name": ":"}),
        ("realtime:{name...}", "realtime:", None),
        ("realtime:{name...}", "realtime", None),
        ("realtime:{name...}", "other:1", None),
        ("{kind}:{id}:{rest...}", "a:b:c:d", {"kind": "a", "id": "b", "rest": "c:d"}),
        ("{kind}:{id}:{rest...}", "a::c", None),
        ("{all...}", "a:b", {"all": "a:b"}),
    ],
)
def test_topic_parameter_for_the_rest_matches_one_or_more_characters_with_colons(
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


@examples(100)
@given(parts, filled, st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_topic_pattern_with_a_rest_round_trips_its_parameters(
    head: str, one: str, rest: str
) -> None:
    pattern = Pattern(f"{head}:{{one}}:{{rest...}}")
    assert pattern.match(f"{head}:{one}:{rest}") == {"one": one, "rest": rest}


@st.composite
def patterns(draw: st.DrawFn) -> str:
    """A pattern of few parts, of which each text is one of few."""
    count = draw(st.integers(1, 3))
    words = [draw(st.sampled_from(["a", "b", "", f"{{p{number}}}"])) for number in range(count)]
    return ":".join(words + draw(st.sampled_from([[], ["{rest...}"]]))) or "a"


#: All topics of up to five parts, each empty or one of three texts.
TOPICS = [":".join(words) for size in range(1, 6) for words in product(["", *"abc"], repeat=size)]


@examples(100)
@given(patterns(), patterns())
def test_topic_pattern_covers_another_if_and_only_if_it_matches_all_its_topics(
    wide: str, narrow: str
) -> None:
    one, other = Pattern(wide), Pattern(narrow)
    matched = [topic for topic in TOPICS if other.match(topic) is not None]
    missed = [topic for topic in matched if one.match(topic) is None]
    assert one.covers(other) is (not missed)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("room:*", r"'\*' at character 6 is neither; write 'room:\{name\}'"),
        ("room:{a b}", r"'\{a b\}' at character 6 is neither"),
        ("a:{b...}:c", r"'\{b...\}' at character 3 matches the rest, so it must be the last"),
        ("{b...}:", r"'\{b...\}' at character 1 matches the rest, so it must be the last part"),
        ("a:{b}:{b...}", r"'\{b...\}' at character 7 has a name that occurs twice"),
        ("a:{...}", r"'\{...\}' at character 3 is neither"),
        ("a:{b....}", r"'\{b....\}' at character 3 is neither"),
        ("a:b{c...}", r"'b\{c...\}' at character 3 is neither"),
        ("room: 1", r"' 1' at character 6 has a space at an end"),
    ],
)
def test_error_of_a_malformed_topic_pattern_names_the_part_and_its_position(
    text: str, fault: str
) -> None:
    with pytest.raises(ConfigurationError, match=fault) as caught:
        Pattern(text)
    assert f"topic={text!r}" in str(caught.value)


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


@pytest.mark.parametrize("text", ["x" * (MAX_TOPIC + 1), "room:\ud800"], ids=["long", "surrogate"])
def test_topic_pattern_that_no_topic_has_is_refused(text: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^topic='.*: must be a Unicode text of at most 1,008 characters$"
    ):
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
        ("room:{a...}", "room:{a}:{b}", True),
        ("room:{a...}", "room:{a}", True),
        ("room:{a}", "room:{a...}", False),
        ("room:{a...}", "room:", False),
        ("room:{a...}", "room::", True),
        ("room:{a}:{b...}", "room:{a...}", False),
        ("{a...}", "room:{a...}", True),
    ],
)
def test_topic_pattern_that_covers_another_is_detected(
    wide: str, narrow: str, covers: bool
) -> None:
    assert Pattern(wide).covers(Pattern(narrow)) is covers


def test_heartbeat_topic_phoenix_is_reserved() -> None:
    with pytest.raises(ConfigurationError, match="phoenix"):
        Pattern("phoenix")
