"""Notices that the process is asked to stop, by the signals that its server handles.

A server that is asked to stop closes its connections first and ends the lifespan afterwards, so
handlers return before the node stops. The signal is the earliest evidence of the shutdown, and
clients cannot forge it.

The server stays in charge. A handler here is installed in front of the server's own, notifies the
listeners and calls the server's; the last listener that goes restores the server's. This works for
handlers of `signal.signal` (uvicorn) and of `loop.add_signal_handler` (hypercorn, granian): for the
latter the interpreter also wakes the event loop, whichever Python function handles the signal.
Where no handler is installed the signal ends the process, so there is nothing to notice. Python's
own handlers of SIGINT raise KeyboardInterrupt or cancel the main task, and are left alone.
"""

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from weakref import WeakMethod

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

Listener = Callable[[], None]
Handler = Callable[[int, FrameType | None], object]

# Signals belong to the process, so this does, too. Used in the main thread only. Each listener has
# its event loop; one that was collected, or whose loop is closed, counts no more.
_listeners: dict[WeakMethod[Listener], asyncio.AbstractEventLoop | None] = {}


class _Front:
    """A handler of a signal in front of another one."""

    def __init__(self, inner: Handler) -> None:
        self.inner = inner

    def __call__(self, number: int, frame: FrameType | None) -> None:
        for reference in tuple(_listeners):
            listener = reference()
            if listener is not None:
                listener()
        self.inner(number, frame)


def add_stop_listener(listener: Listener, loop: asyncio.AbstractEventLoop | None) -> None:
    """Call a method whenever the process is asked to stop, until `remove_stop_listener`.

    Does nothing outside the main thread, where servers handle no signals.

    Args:
        listener: Runs inside a signal handler, between any two instructions of the main thread;
            it must neither block nor raise. Its object is referenced weakly.
        loop: The event loop that it belongs to, if any; once that is closed, it counts no more.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    _prune()
    _listeners[WeakMethod(listener)] = loop
    renew_handlers()


def renew_handlers() -> None:
    """Get in front of handlers that were installed since, as by a server that started later.

    Does nothing outside the main thread, or if there is no listener.
    """
    if not _listeners or threading.current_thread() is not threading.main_thread():
        return
    for number in _SIGNALS:
        handler = signal.getsignal(number)
        if callable(handler) and not isinstance(handler, _Front) and not _is_of_python(handler):
            signal.signal(number, _Front(handler))


def remove_stop_listener(listener: Listener) -> None:
    """Call it no more. Idempotent.

    A handler that somebody else has installed meanwhile stays, and with it the one that it calls.
    """
    _listeners.pop(WeakMethod(listener), None)
    _prune()
    if _listeners or threading.current_thread() is not threading.main_thread():
        return
    for number in _SIGNALS:
        handler = signal.getsignal(number)
        if isinstance(handler, _Front):
            signal.signal(number, handler.inner)


def _prune() -> None:
    for reference, loop in tuple(_listeners.items()):
        if reference() is None or (loop is not None and loop.is_closed()):
            del _listeners[reference]


def _is_of_python(handler: Handler) -> bool:
    """Whether Python or `asyncio.run` has installed a handler.

    The latter removes its handler only if it finds it in place, and a node need not have stopped by
    then.
    """
    runner = getattr(getattr(handler, "func", None), "__self__", None)
    return handler is signal.default_int_handler or isinstance(runner, asyncio.Runner)
