"""`TopicRoom`: whether the client of a bus has room for messages on topics. No I/O.

A bus has no credit for these messages, so their only backpressure is the backlog of the client: the
bytes that its socket has not taken. The client reports no change of it. So it is looked at after
each publish, and, while messages wait, every `BACKLOG_INTERVAL`.

Invariants:
- Beyond `TOPIC_BACKLOG` there is no room, and this is reported inside the publish that fills it: a
  publisher of many messages in one turn of the event loop learns of it in time.
- There is room again at a quarter of this, so a slow engine is not asked for each message.
- While there is room, no timer is set.
"""

from collections.abc import Callable

from .limits import BACKLOG_INTERVAL, TOPIC_BACKLOG


class TopicRoom:
    """Watches the backlog of a client while messages on topics wait.

    Args:
        backlog: Returns the bytes in the backlog of the client; None once the transport is closed,
            or in a forked child, where nothing more is reported.
        changed: Called with whether there is room, at each change.
        call_later: Calls a function after some seconds, as `asyncio.loop.call_later` does.
    """

    def __init__(
        self,
        backlog: Callable[[], int | None],
        changed: Callable[[bool], None],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._backlog = backlog
        self._changed = changed
        self._call_later = call_later
        # Without room, a look at the backlog is due.
        self._has_room = True
        self._stopped = False

    def check(self) -> None:
        """Look at the backlog after a publish."""
        size = self._backlog()
        if self._has_room and not self._stopped and size is not None and size > TOPIC_BACKLOG:
            self._has_room = False
            self._call_later(BACKLOG_INTERVAL, self._look)
            self._changed(False)

    def stop(self) -> None:
        """Report nothing more. Idempotent."""
        self._stopped = True

    def _look(self) -> None:
        size = self._backlog()
        if self._stopped or size is None:
            return
        if size > TOPIC_BACKLOG // 4:
            self._call_later(BACKLOG_INTERVAL, self._look)
        else:
            self._has_room = True
            self._changed(True)
