"""`HealthCheck`: calls the check of a registration again and again, and reports each result."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from adsum.sparselog import log_line
from adsum.tasks import cancel_task, start_task

logger = logging.getLogger("adsum.services")

Check = Callable[[], Awaitable[object]]


class HealthCheck:
    """Calls a check at once and then every some seconds, until it is stopped.

    A check fails if it raises, returns False, or takes longer than the time between two checks. Any
    other result is a success. One that is late is reported at once and cancelled; the next one
    follows its end, however long it takes to clean up.

    Args:
        check: The check of the application.
        every: Seconds between the end of one check and the next one, and for one check at most.
        label: The registration, for the log.
        report: Called with each result.
    """

    def __init__(
        self, check: Check, every: float, label: str, report: Callable[[bool], None]
    ) -> None:
        self._check = check
        self._every = every
        self._label = label
        self._report = report
        # The last result; None before the first.
        self._healthy: bool | None = None
        self._checked = asyncio.Event()
        self._task = start_task(self._run())
        self._task.add_done_callback(self._ended)

    async def checked(self) -> None:
        """Wait for the first result, or the end."""
        await self._checked.wait()

    def stop(self) -> None:
        """Stop checking. Idempotent."""
        cancel_task(self._task)

    async def _run(self) -> None:
        while True:
            checking = start_task(self._failure())
            try:
                await asyncio.wait([checking], timeout=self._every)
                self._conclude(checking)
                await _end(checking)
            finally:
                cancel_task(checking)
            await asyncio.sleep(self._every)

    async def _failure(self) -> BaseException | str | None:
        """Call the check; returns the reason of a failure, or None."""
        try:
            passed = await self._check()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return error  # raised by the check itself
        except Exception as error:
            return error
        return "it returned False" if passed is False else None

    def _conclude(self, checking: "asyncio.Task[BaseException | str | None]") -> None:
        """Report the result of a check, or that it has none in time."""
        late = f"no result within {self._every:g} s"
        failure = checking.result() if checking.done() else late
        healthy = failure is None
        if healthy is not self._healthy:
            self._log(healthy, failure)
        self._healthy = healthy
        self._report(healthy)
        self._checked.set()

    def _log(self, healthy: bool, failure: BaseException | str | None) -> None:
        if isinstance(failure, BaseException):
            text = "%s is withdrawn until its check succeeds"
            log_line(logger, logging.WARNING, text, (self._label,), failure)
        elif failure is not None:
            logger.warning("%s is withdrawn until its check succeeds: %s", self._label, failure)
        elif self._healthy is not None:
            logger.info("%s is listed again: its check succeeds", self._label)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._checked.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log_line(logger, logging.ERROR, "the check of %s ends", (self._label,), error)


async def _end(checking: "asyncio.Task[BaseException | str | None]") -> None:
    """Cancel a check that is late, and wait for its end: it may clean up, at length."""
    if not checking.done():
        checking.cancel()
        await asyncio.wait([checking])
