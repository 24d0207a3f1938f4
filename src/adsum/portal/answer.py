"""`Answer`: the result of one call, which one thread delivers and others wait for.

The futures of the standard library hold a lock while a thread begins and ends to wait. A signal
handler may interrupt the thread there, and call the portal too. The event loop that delivers would
wait for that lock, the lock for the handler, and the handler for the event loop. So no step here
holds a lock that another step needs.
"""

import threading
from collections.abc import Callable
from typing import Any


class Answer:
    """The result of a call, or its error; the first one that is delivered counts."""

    __slots__ = ("_arrived", "_error", "_result", "_rights", "done", "then")

    def __init__(self) -> None:
        # The right to deliver; one step takes it, in whichever thread.
        self._rights = [None]
        self._arrived = threading.Lock()
        self._arrived.acquire()
        self._result: object = None
        self._error: BaseException | None = None
        #: Whether a result or an error has been delivered.
        self.done = False
        #: Called with the delivery, in the thread that delivers; set it before checking `done`.
        self.then: Callable[[], None] | None = None

    def deliver(self, result: object) -> None:
        """Deliver a result, unless there is one or an error already."""
        self._settle(result, None)

    def fail(self, error: BaseException) -> None:
        """Deliver an error, unless there is one or a result already."""
        self._settle(None, error)

    def wait(self, seconds: float) -> bool:
        """Wait so long at most; returns whether the call is done."""
        if not self.done and self._arrived.acquire(timeout=seconds):
            self._arrived.release()  # for the next thread that waits
        return self.done

    def result(self) -> Any:
        """The result of a call that is done; raises its error."""
        if self._error is None:
            return self._result
        try:
            raise self._error
        finally:
            del self  # the traceback of the error refers to this frame

    def _settle(self, result: object, error: BaseException | None) -> None:
        try:
            self._rights.pop()
        except IndexError:
            return
        self._result, self._error, self.done = result, error, True
        self._arrived.release()
        if self.then is not None:
            self.then()
