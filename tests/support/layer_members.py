"""The processes of a channel layer for Django Channels, as one of them counts them."""

from typing import Any

from adsum.integrations.django import ChannelLayer

#: Settings with which a crash is noticed later than a test ends.
UNNOTICED: dict[str, Any] = {"down_after": 600.0, "link_grace": 600.0, "forget_after": 600.0}


def members(layer: ChannelLayer) -> int:
    """The number of processes that use a layer."""
    found: int = layer.portal.call(layer.portal.node.stats)["members_up"]
    return found
