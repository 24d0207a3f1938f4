"""Pauses of the cyclic garbage collector, for code that makes many objects that all stay.

Each 700 new containers start a collection, and growth by a quarter starts one of all objects. While
a large list is rendered, these collections find nothing and take up to half of the time.
"""

import gc
from types import TracebackType

from adsum.forks import call_after_fork


class CollectorPause:
    """A context in which the collector does not start; for one call of synchronous code.

    The collector is one for all threads of a process. Pauses of several threads may overlap: the
    first to end enables the collector again. A pause leaves a disabled collector disabled. A child
    that another thread forks during a pause has its collector enabled.
    """

    __slots__ = ("_paused",)

    def __enter__(self) -> None:
        self._paused = gc.isenabled()
        if self._paused:
            _active.append(self)
            gc.disable()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._paused:
            gc.enable()
            _active.remove(self)


# The pauses that will enable the collector again.
_active: list[CollectorPause] = []


def _after_fork() -> None:
    if _active:
        _active.clear()
        gc.enable()


call_after_fork(_after_fork)
