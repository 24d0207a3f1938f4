"""A channel layer for Django Channels: workers of one application communicate without a server.

Set it in ``CHANNEL_LAYERS``, as ``"BACKEND": "adsum.integrations.django.ChannelLayer"``. It needs
the extra: ``pip install "adsum[django]"``.

The files, from the ground up: `layerlimits`, `layermailbox` has the unread messages of one channel,
`localchannels` the channels and groups of one process, `layernode` the traffic with others in the
event loop of the node, and `channellayer` the layer, for any event loop.
"""

try:
    from .channellayer import ChannelLayer
except ModuleNotFoundError as error:
    package = str(error.name).partition(".")[0]
    raise ModuleNotFoundError(
        f'adsum.integrations.django needs {package}: pip install "adsum[django]"',
        name=error.name,
    ) from error

__all__ = ["ChannelLayer"]
