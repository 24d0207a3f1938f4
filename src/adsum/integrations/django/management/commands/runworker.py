"""`manage.py runworker`, which SIGTERM ends normally: its node says goodbye.

Django finds it in place of the command of Channels if ``"adsum.integrations.django"`` is above
``"channels"`` in ``INSTALLED_APPS``. Without a handler Python dies by SIGTERM, and a library does
not install one by itself, because handlers belong to the program. Here the program is this command.
"""

import asyncio
import signal
from contextlib import suppress
from typing import Any

from channels.exceptions import ChannelFull
from channels.management.commands import runworker
from channels.worker import Worker

from adsum.integrations.django.layerlimits import HAND_OVER
from adsum.integrations.django.layernode import logger
from adsum.tasks import start_task

#: Seconds between two attempts to send a message again to a full channel.
_PAUSE = 0.01


class StoppableWorker(Worker):  # type: ignore[misc]  # channels has no types
    """A worker that ends at SIGTERM, and leaves its messages to others.

    Channels reads the messages of a channel as they arrive, and queues them for its consumer. Those
    that the consumer has not begun to handle are sent again, which waits for at most `HAND_OVER`
    in all while the other receivers are full. One that it handles is cancelled. A second SIGTERM
    ends the process at once.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._listening: list[asyncio.Task[None]] = []

    async def handle(self) -> None:
        """Receive messages until SIGTERM."""
        loop = asyncio.get_running_loop()
        with suppress(RuntimeError):  # in a thread that is not the main one, and on Windows
            loop.add_signal_handler(signal.SIGTERM, self._received_signal)
        await super().handle()

    async def listener(self, channel: str) -> None:
        """Receive the messages of a channel until SIGTERM."""
        listening = start_task(super().listener(channel))
        self._listening.append(listening)
        await asyncio.wait([listening])
        if not listening.cancelled():
            listening.result()
        elif channel in self.application_instances:
            await self._send_again(channel, self.application_instances[channel]["input_queue"])

    def stop(self) -> None:
        """Receive no more messages, and end."""
        for each in self._listening:
            each.cancel()

    async def _send_again(self, channel: str, queue: "asyncio.Queue[dict[str, Any]]") -> None:
        waited = 0.0
        while not queue.empty():
            message = queue.get_nowait()
            while not await self._is_sent(channel, message):
                if waited >= HAND_OVER:
                    lost = queue.qsize() + 1
                    logger.warning("channel %s is full, %d messages are lost", channel, lost)
                    return
                await asyncio.sleep(_PAUSE)
                waited += _PAUSE

    async def _is_sent(self, channel: str, message: dict[str, Any]) -> bool:
        """Send a message; returns whether the channel had room."""
        try:
            await self.channel_layer.send(channel, message)
        except ChannelFull:
            return False
        return True

    def _received_signal(self) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
        self.stop()


class Command(runworker.Command):  # type: ignore[misc]
    """The command of Channels, with this worker."""

    worker_class = StoppableWorker
