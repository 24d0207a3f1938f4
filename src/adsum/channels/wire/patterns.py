"""Patterns of topics: ``room:{room}`` matches ``room:lobby`` with parameter room=lobby. Pure."""

from typing import NamedTuple, NoReturn

from adsum.arguments import instance, refuse
from adsum.quoting import quoted
from adsum.values.limits import MAX_NAME
from adsum.values.names import is_name

#: Characters of a channel topic: fewer than of a name, because nodes send each other the broadcasts
#: on it under a topic that has a prefix before it.
MAX_TOPIC = MAX_NAME - 16
_ACCEPTED = (
    "a str such as 'room:{room}', where each part between colons is a text or a name in braces"
)
#: After the name of the last parameter: it matches the rest of the topic.
_REST = "..."


class _Part(NamedTuple):
    """A part of a pattern between colons: a text, or the name of a parameter."""

    text: str
    is_parameter: bool


class Pattern:
    """A topic pattern: parts between colons, each a text or a parameter in braces.

    A parameter matches any text that is not empty and has no colon. A last one with three dots, as
    in ``realtime:{name...}``, matches the rest of the topic: one or more characters, also colons.

    Args:
        text: As ``room:{room}``, ``lobby`` or ``realtime:{name...}``; at most 1,008 characters, as
            a topic.

    Raises:
        ConfigurationError: It is not a pattern, or it is in the syntax of another framework and
            would match only itself; the message names the part, its position, and the syntax used
            here.
    """

    def __init__(self, text: str) -> None:
        instance("topic", text, str, _ACCEPTED)
        if not text:
            refuse("topic", text, _ACCEPTED)
        if not is_name(text, MAX_TOPIC):
            refuse("topic", text, f"a Unicode text of at most {MAX_TOPIC:,} characters")
        self.text = text
        self._parts, self._has_rest = _parse(text)
        if text == "phoenix":
            refuse("topic", text, "another topic: clients send their heartbeats on this one")

    def match(self, topic: str) -> dict[str, str] | None:
        """The parameters of a topic; None if it does not match."""
        values = topic.split(":", len(self._parts) - self._has_rest)
        if len(values) != len(self._parts):
            return None
        params = dict[str, str]()
        for (part, is_parameter), value in zip(self._parts, values, strict=True):
            if is_parameter and value:
                params[part] = value
            elif is_parameter or part != value:
                return None
        return params

    def covers(self, other: "Pattern") -> bool:
        """Whether this matches each topic that another pattern matches."""
        if other._has_rest and not self._has_rest:
            return False  # it matches topics of any number of parts
        own, others = self._parts, other._parts
        if self._has_rest and len(others) > len(own):
            # The rest matches the further parts: they contain a colon, so they are not empty.
            own = own[:-1]
            others = others[: len(own)]
        return len(own) == len(others) and all(map(_covers, own, others))


def _covers(part: _Part, other: _Part) -> bool:
    """Whether a part matches each text that another part matches."""
    if part.is_parameter:
        return other.is_parameter or bool(other.text)
    return part == other


def _parse(text: str) -> tuple[list[_Part], bool]:
    """The parts of a pattern, and whether the last one matches the rest of a topic."""
    parts, at, has_rest = list[_Part](), 1, False
    words = text.split(":")
    for index, word in enumerate(words, 1):
        part, has_rest = _parse_part(word, text, at)
        if has_rest and index < len(words):
            _refuse_part(text, word, at, "matches the rest, so it must be the last part")
        if part.is_parameter and part in parts:
            _refuse_part(text, word, at, "has a name that occurs twice")
        parts.append(part)
        at += len(word) + 1
    return parts, has_rest


def _parse_part(word: str, text: str, at: int) -> tuple[_Part, bool]:
    """One part, and whether it matches the rest of a topic.

    Args:
        word: The part as it is written.
        text: The whole pattern, for the error.
        at: The position of the part in it, the first character being 1.
    """
    if word.startswith("{") and word.endswith("}"):
        inner = word[1:-1]
        name = inner.removesuffix(_REST)
        if not name.isidentifier():
            _refuse_part(text, word, at, "is neither")
        return _Part(name, True), name != inner
    # Parameters in the syntax of other routers; such a text would match only itself.
    if set("*{}") & set(word) or word.startswith("<") or word.endswith(">"):
        _refuse_part(text, word, at, "is neither; write 'room:{name}' for every room")
    if word != word.strip():
        _refuse_part(text, word, at, "has a space at an end")
    return _Part(word, False), False


def _refuse_part(text: str, word: str, at: int, fault: str) -> NoReturn:
    """Raise the error for one part of a pattern."""
    refuse("topic", text, f"{_ACCEPTED}; {quoted(word)} at character {at} {fault}")
