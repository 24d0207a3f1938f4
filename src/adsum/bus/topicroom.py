"""`TopicRoom`: whether the client of a bus has room for messages on topics.

A bus has no credit for these messages, so their only backpressure is the backlog of the client: the
bytes that its socket has not taken. The client reports no change of it. So it is looked at after
each publish, and, while messages wait, every `BACKLOG_INTERVAL`.

Invariants:
- Beyond `TOPIC_BACKLOG` there is no room, and this is reported inside the publish that fills it: a
  publisher of many messages in one turn of the event loop learns of it in time.
- There is room again at a quarter of this, so a slow engine is not asked for each message.
- While there is room, no timer is set.
"""

import asyncio
from collections.abc import Callable

from .limits import BACKLOG_INTERVAL, TOPIC_BACKLOG


class TopicRoom:
    """Watches the backlog of a client while messages on topics wait.

    Args:
        backlog: Returns the bytes in the backlog of the client; None once the transport is closed,
            or in a forked child, where nothing more is reported.
        changed: Called with whether there is room, at each change.
        loop: The event loop of the transport.
    """

    def __init__(
        self,
        backlog: Callable[[], int | None],
        changed: Callable[[bool], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._backlog = backlog
        self._changed = changed
        self._loop = loop
        # The next look at the backlog; set while there is no room.
        self._timer: asyncio.TimerHandle | None = None

    def check(self) -> None:
        """Look at the backlog after a publish."""
        size = self._backlog()
        if self._timer is None and size is not None and size > TOPIC_BACKLOG:
            self._look_later()
            self._changed(False)

    def stop(self) -> None:
        """Report nothing more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()

    def _look_later(self) -> None:
        self._timer = self._loop.call_later(BACKLOG_INTERVAL, self._look)

    def _look(self) -> None:
        size = self._backlog()
        if size is None:
            return
        if size > TOPIC_BACKLOG // 4:
            self._look_later()
        else:
            self._timer = None
            self._changed(True)
