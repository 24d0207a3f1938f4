"""Patterns of topics: ``room:{room}`` matches ``room:lobby`` and says that room is lobby. Pure."""

from adsum.errors import ConfigurationError


class Pattern:
    """Parts between colons, each a text or a parameter in braces, which stands for any text.

    Args:
        text: As ``room:{room}`` or ``lobby``.

    Raises:
        ConfigurationError: It is not a pattern.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        #: Each part of the topic: a text, or the name of a parameter.
        self._parts = [_parse(part) for part in text.split(":")]
        names = [name for name, is_parameter in self._parts if is_parameter]
        fine = all(name.isidentifier() for name in names) and not any(
            set("{}") & set(part) for part, is_parameter in self._parts if not is_parameter
        )
        if not text or not fine or len(set(names)) != len(names):
            raise ConfigurationError(
                f"topic={text!r}: accepted is a text such as 'room:{{room}}', in which what is "
                f"between two colons is a text or a name in braces, each name once"
            )
        if text == "phoenix":
            raise ConfigurationError("topic='phoenix': clients send their heartbeats there")

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


def _parse(part: str) -> tuple[str, bool]:
    if part.startswith("{") and part.endswith("}"):
        return part[1:-1], True
    return part, False
