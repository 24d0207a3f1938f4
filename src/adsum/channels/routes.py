"""`Routes`: finds the channel class that serves a topic."""

from collections.abc import Iterable
from typing import Any

from adsum.arguments import refuse
from adsum.errors import ConfigurationError
from adsum.values.names import RESERVED

from .channel import Channel, pattern_of
from .wire.patterns import MAX_TOPIC, Pattern


class Routes:
    """The channel classes of a socket, in the order in which their patterns are tried.

    Args:
        channels: Subclasses of `Channel`.

    Raises:
        ConfigurationError: A class has no topic, or no topic reaches it because of the order.
    """

    def __init__(self, channels: Iterable[type[Channel]]) -> None:
        self._routes = _checked(channels)

    def __len__(self) -> int:
        return len(self._routes)

    def find(self, topic: str) -> tuple[type[Channel], dict[str, str]] | None:
        """The channel class for a topic and the topic's parameters; None if no pattern matches.

        Topics of adsum match none: a client could list the services of the cluster there.
        """
        if len(topic) > MAX_TOPIC or topic.startswith(RESERVED):
            return None
        for pattern, channel in self._routes:
            params = pattern.match(topic)
            if params is not None:
                return channel, params
        return None


def _checked(channels: Any) -> list[tuple[Pattern, type[Channel]]]:
    """The classes with their patterns; refuses a class that no topic can reach."""
    if isinstance(channels, type | str) or not isinstance(channels, Iterable):
        one = channels.__name__ if isinstance(channels, type) else "Room"
        refuse("channels", channels, f"a list of classes, as [{one}]")
    routes = [(pattern_of(channel), channel) for channel in channels]
    for index, (pattern, channel) in enumerate(routes):
        for before, other in routes[:index]:
            if before.covers(pattern):
                raise ConfigurationError(
                    f"channels: no topic reaches {channel.__name__} ({pattern.text!r}), since "
                    f"{other.__name__} ({before.text!r}) precedes it and matches the same "
                    f"topics; change the order or a topic"
                )
    return routes
