"""Patterns of topics: ``room:{room}`` matches ``room:lobby`` and says that room is lobby. Pure."""

import re

from adsum.errors import ConfigurationError

_PARAMETER = re.compile(r"\{(\w+)\}")


class Pattern:
    """A topic with parameters in braces. A parameter is one or more characters other than ``:``.

    Args:
        text: As ``room:{room}`` or ``lobby``.

    Raises:
        ConfigurationError: It is not a pattern.
    """

    def __init__(self, text: str) -> None:
        names = _PARAMETER.findall(text)
        rest = _PARAMETER.sub("", text)
        unclear = len(set(names)) != len(names) or not all(map(str.isidentifier, names))
        if not text or "{" in rest or "}" in rest or unclear:
            raise ConfigurationError(
                f"topic={text!r}: accepted is a text such as 'room:{{room}}', each name once"
            )
        if text == "phoenix":
            raise ConfigurationError("topic='phoenix': clients send their heartbeats there")
        self.text = text
        pieces = _PARAMETER.split(text)  # text and names by turns
        self._expression = re.compile(
            "".join(
                f"(?P<{piece}>[^:]+)" if index % 2 else re.escape(piece)
                for index, piece in enumerate(pieces)
            )
        )

    def match(self, topic: str) -> dict[str, str] | None:
        """The parameters of a topic; None if it does not match."""
        found = self._expression.fullmatch(topic)
        return None if found is None else found.groupdict()
