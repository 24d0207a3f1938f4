"""Detects a shutdown request by the signals that the server of the process handles.

A server that receives a stop signal closes its connections first and ends the lifespan afterwards,
so handlers return before the node stops. The signal is the earliest evidence of the shutdown, and
clients cannot forge it.

The server stays in charge. The handler of this module is installed in front of the server's own,
notifies the listeners and then calls the server's; removing the last listener restores the
server's. This works for handlers of `signal.signal` (uvicorn) and of `loop.add_signal_handler`
(hypercorn, granian): for the latter the interpreter also wakes the event loop, whichever Python
function handles the signal. Without an installed handler the signal ends the process, so there is
nothing to detect. Python's own handlers of SIGINT raise KeyboardInterrupt or cancel the main task,
and are left alone.
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

# Stop listeners with their event loops. A global, because signals belong to the process; used in
# the main thread only. A listener that was collected, or whose loop is closed, is ignored.
_listeners: dict[WeakMethod[Listener], asyncio.AbstractEventLoop | None] = {}


class _Front:
    """A signal handler that notifies the listeners, then calls the handler behind it."""

    def __init__(self, inner: Handler) -> None:
        self.inner = inner

    @property
    def __self__(self) -> object:
        """The object of the method behind it, such as uvicorn's server.

        Other libraries find their server by it: without it, sse-starlette would not end streams
        when the server stops, and the server would wait for them.

        Raises:
            AttributeError: The handler behind it is no method.
        """
        return self.inner.__self__  # type: ignore[attr-defined]  # methods have it

    def __call__(self, number: int, frame: FrameType | None) -> None:
        for reference in tuple(_listeners):
            listener = reference()
            if listener is not None:
                listener()
        self.inner(number, frame)


def add_stop_listener(listener: Listener, loop: asyncio.AbstractEventLoop | None) -> None:
    """Call a method at every stop signal of the process, until `remove_stop_listener`.

    Does nothing outside the main thread, where servers handle no signals.

    Args:
        listener: Runs inside a signal handler, between any two instructions of the main thread;
            it must neither block nor raise. Its object is referenced weakly.
        loop: The event loop that it belongs to, if any; the listener ends when that is closed.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    _prune()
    _listeners[WeakMethod(listener)] = loop
    renew_handlers()


def renew_handlers() -> None:
    """Install this module's handler in front of newer ones, such as those of a later server.

    Does nothing outside the main thread, or if there is no listener.
    """
    if not _listeners or threading.current_thread() is not threading.main_thread():
        return
    for number in _SIGNALS:
        handler = signal.getsignal(number)
        if callable(handler) and not isinstance(handler, _Front) and not _is_of_python(handler):
            signal.signal(number, _Front(handler))


def remove_stop_listener(listener: Listener) -> None:
    """Remove a stop listener; the last one removed restores the server's handlers. Idempotent.

    A handler that other code has installed in front of ours stays, and so does ours behind it.
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
    """Whether a handler was installed by Python or by `asyncio.run`.

    `asyncio.run` removes its handler only if it is still in place, and the node may still run then.
    """
    runner = getattr(getattr(handler, "func", None), "__self__", None)
    return handler is signal.default_int_handler or isinstance(runner, asyncio.Runner)
