"""Patterns of topics: ``room:{room}`` matches ``room:lobby`` with parameter room=lobby. Pure."""

from adsum.arguments import instance, refuse
from adsum.quoting import quoted

_ACCEPTED = (
    "a str such as 'room:{room}', where each part between colons is a text or a name in braces"
)


class Pattern:
    """A topic pattern: parts between colons, each a text or a parameter in braces.

    A parameter matches any text that is not empty and has no colon.

    Args:
        text: As ``room:{room}`` or ``lobby``.

    Raises:
        ConfigurationError: It is not a pattern, or it is in the syntax of another framework and
            would match only itself; the message gives the syntax used here.
    """

    def __init__(self, text: str) -> None:
        instance("topic", text, str, _ACCEPTED)
        if not text:
            refuse("topic", text, _ACCEPTED)
        self.text = text
        #: Each part of the topic: a text, or the name of a parameter.
        self._parts = [_parse(part, text) for part in text.split(":")]
        names = [name for name, is_parameter in self._parts if is_parameter]
        if len(set(names)) != len(names):
            refuse("topic", text, f"a pattern in which each name occurs once; {_ACCEPTED}")
        if text == "phoenix":
            refuse("topic", text, "another topic: clients send their heartbeats on this one")

    def match(self, topic: str) -> dict[str, str] | None:
        """The parameters of a topic; None if it does not match."""
        values = topic.split(":", len(self._parts))
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
        return len(self._parts) == len(other._parts) and all(
            (is_parameter and (is_other_parameter or bool(other_part)))
            or (not is_other_parameter and part == other_part)
            for (part, is_parameter), (other_part, is_other_parameter) in zip(
                self._parts, other._parts, strict=True
            )
        )


def _parse(part: str, text: str) -> tuple[str, bool]:
    if part.startswith("{") and part.endswith("}"):
        name = part[1:-1]
        if not name.isidentifier():
            refuse("topic", text, f"{_ACCEPTED}; {quoted(part)} is neither")
        return name, True
    # Parameters in the syntax of other routers; such a text would match only itself.
    if set("*{}") & set(part) or part.startswith("<") or part.endswith(">"):
        refuse("topic", text, f"{_ACCEPTED}; write 'room:{{name}}' for every room")
    if part != part.strip():
        refuse("topic", text, f"without spaces beside a colon or an end; {_ACCEPTED}")
    return part, False
