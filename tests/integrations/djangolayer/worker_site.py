"""A Django site with a slow synchronous consumer, and a command that waits for SIGTERM."""

import os
import signal
import sys
import time
from typing import Any

from asgiref.sync import async_to_sync
from channels.consumer import SyncConsumer
from channels.layers import get_channel_layer
from channels.routing import ChannelNameRouter, ProtocolTypeRouter
from django.conf import settings
from django.core.management import execute_from_command_line

if not settings.configured:
    settings.configure(
        ASGI_APPLICATION=f"{__spec__.name}.application",
        INSTALLED_APPS=["adsum.integrations.django", "channels"],
        CHANNEL_LAYERS={"default": {"BACKEND": "adsum.integrations.django.ChannelLayer"}},
    )


class Slow(SyncConsumer):  # type: ignore[misc]  # channels has no types
    """Says when it begins a message, and when it has handled it."""

    def work(self, event: dict[str, Any]) -> None:
        print("begins", flush=True)
        time.sleep(float(os.environ["SECONDS"]))
        print("has finished", flush=True)


application = ProtocolTypeRouter({"channel": ChannelNameRouter({"work": Slow.as_asgi()})})


def wait_for_sigterm() -> None:
    """A command of an application: it uses the layer, and waits until it is stopped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    async_to_sync(get_channel_layer().new_channel)()
    while True:
        signal.pause()


if __name__ == "__main__":
    if sys.argv[1:] == ["wait"]:
        wait_for_sigterm()
    else:
        execute_from_command_line(sys.argv)
