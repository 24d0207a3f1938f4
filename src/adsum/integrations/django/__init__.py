"""A channel layer and presences for Django Channels: workers communicate without a server.

Set it in ``CHANNEL_LAYERS``, as ``"BACKEND": "adsum.integrations.django.ChannelLayer"``. It needs
the extra: ``pip install "adsum[django]"``.

The files, from the ground up: `layerlimits`, `layermailbox` has the unread messages of one channel,
`localchannels` the channels and groups of one process, `layernode` the traffic with others in the
event loop of the node, and `channellayer` the layer, for any event loop. `consumerpresences` has
users in rooms, in the event loop of the node; `presencemixin` is the side of consumers and views.
`apps`, `templatetags` and `management` make this package a Django app.
"""

try:
    from .channellayer import ChannelLayer
    from .presencemixin import PresenceMixin, PresentUser, apresent, present
except ModuleNotFoundError as error:
    package = str(error.name).partition(".")[0]
    raise ModuleNotFoundError(
        f'adsum.integrations.django needs {package}: pip install "adsum[django]"',
        name=error.name,
    ) from error

__all__ = ["ChannelLayer", "PresenceMixin", "PresentUser", "apresent", "present"]
