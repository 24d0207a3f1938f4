"""Channel layers for tests, closed at the end of a block."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from adsum.integrations.django import ChannelLayer


@contextmanager
def two_layers(cluster: str, **settings: Any) -> Iterator[tuple[ChannelLayer, ChannelLayer]]:
    """Two layers of one cluster, as two processes have them."""
    first, second = (ChannelLayer(cluster=cluster, **settings) for _ in range(2))
    try:
        yield first, second
    finally:
        first.portal.close()
        second.portal.close()
