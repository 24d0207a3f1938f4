"""Other processes that are told what to do over a pipe, and are gone when their block ends."""

import asyncio
import contextlib
import inspect
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Any

#: No single order takes longer than this, in seconds.
PATIENCE = 120.0

_context = multiprocessing.get_context("spawn")


class Worker:
    """A process that holds one object and calls its methods when told to.

    Args:
        make: Makes the object, over there.
        uvloop: Whether its event loop is that of uvloop instead of the standard library's.
    """

    def __init__(self, make: Callable[[], object], *, uvloop: bool = False) -> None:
        self._pipe, theirs = _context.Pipe()
        self._process = _context.Process(target=_obey, args=(theirs, make, uvloop), daemon=True)
        self._process.start()
        theirs.close()

    def call(self, method: str, *args: object, **kwargs: object) -> Any:
        """Call a method over there and wait for its answer."""
        self.tell(method, *args, **kwargs)
        return self.answer()

    def tell(self, method: str, *args: object, **kwargs: object) -> None:
        """Begin a call; its `answer` must be taken before the next."""
        self._pipe.send((method, args, kwargs))

    def answer(self) -> Any:
        """What the call that was begun returns.

        Raises:
            RuntimeError: The method failed, the process ended, or it took too long.
        """
        if not self._pipe.poll(PATIENCE):
            raise RuntimeError(f"a worker did not answer within {PATIENCE:g} s")
        try:
            done, result = self._pipe.recv()
        except EOFError:
            raise RuntimeError("a worker has ended") from None
        if not done:
            raise RuntimeError(f"a worker failed: {result}")
        return result

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        pid = self._process.pid
        if pid is not None and self._process.is_alive():
            os.kill(pid, number)

    def end(self) -> None:
        """Kill the process, stopped or not, and wait until it is gone. Idempotent."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


@contextmanager
def workers(
    make: Callable[[], object], count: int, *, uvloop: bool = False
) -> Iterator[list[Worker]]:
    """So many processes for the length of a block."""
    with ExitStack() as stack:
        started = []
        for _ in range(count):
            worker = Worker(make, uvloop=uvloop)
            stack.callback(worker.end)
            started.append(worker)
        yield started


def _obey(pipe: Connection, make: Callable[[], object], uvloop: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's to handle
    with (
        contextlib.suppress(EOFError, BrokenPipeError, asyncio.CancelledError),
        asyncio.Runner(loop_factory=_uvloop() if uvloop else None) as runner,
    ):
        runner.run(_serve(pipe, make()))


def _uvloop() -> Callable[[], asyncio.AbstractEventLoop]:
    import uvloop

    return uvloop.new_event_loop


async def _serve(pipe: Connection, subject: object) -> None:
    while True:
        method, args, kwargs = await _receive(pipe)
        try:
            result = getattr(subject, method)(*args, **kwargs)
            if inspect.isawaitable(result):
                result = await result
        except Exception as error:
            pipe.send((False, f"{method}: {error!r}"))
        else:
            pipe.send((True, result))


async def _receive(pipe: Connection) -> Any:
    """The next message, without keeping the event loop from other work."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(pipe.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(pipe.fileno())
    return pipe.recv()
