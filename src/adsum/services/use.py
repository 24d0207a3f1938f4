"""`Use`: one use of an instance, counted while it lasts, with its outcome reported once."""

from contextlib import suppress
from types import TracebackType
from typing import Protocol

from adsum.errors import NodeNotRunningError

from .instance import Instance
from .slot import Slot


class Reports(Protocol):
    """Takes the outcomes of uses; implemented by `Services`."""

    def report_success(self, instance: Instance) -> None:
        """An instance has answered."""

    def report_failure(self, instance: Instance) -> None:
        """An instance has failed."""


class Use:
    """One use of an instance; made by `Services.use`.

    It counts for ``least_used`` from its creation until one of `succeeded`, `failed` and `release`.
    The first of them counts, and later ones have no effect. As a context manager it ends with the
    block: an `OSError`, such as `ConnectionError` and `TimeoutError`, is a failure, no error is a
    success, and any other error is neither.

    One that nobody holds any longer ends too, without an outcome: its thread may have been
    interrupted, or a call of a portal was out of time, so nobody can end it.
    """

    #: Whether it has not ended; False until it counts.
    open = False

    def __init__(self, slot: Slot, reports: Reports) -> None:
        #: The instance.
        self.instance = slot.instance
        self._slot = slot
        self._reports = reports
        slot.uses += 1
        self.open = True

    def __del__(self) -> None:
        self.release()

    def release(self) -> bool:
        """End the use without an outcome. Idempotent; returns whether this call ended it."""
        was_open, self.open = self.open, False
        if was_open:
            self._slot.uses -= 1
        return was_open

    def succeeded(self) -> None:
        """End the use: the instance has answered. Its failures are forgotten."""
        if self.release():
            with suppress(NodeNotRunningError):  # the state of instances has ended with the node
                self._reports.report_success(self.instance)

    def failed(self) -> None:
        """End the use: the instance is skipped for a while."""
        if self.release():
            with suppress(NodeNotRunningError):
                self._reports.report_failure(self.instance)

    def __enter__(self) -> Instance:
        return self.instance

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error_type is None:
            self.succeeded()
        elif issubclass(error_type, OSError):
            self.failed()
        else:
            self.release()
