"""Handles to presences that a portal tracks, for any thread."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from adsum.errors import NodeNotRunningError, NotTrackedError
from adsum.forks import process
from adsum.tracked import Meta, Tracked


class PortalTracked:
    """A handle to one tracked presence, returned by `Portal.track`; safe in any thread.

    As a context manager it untracks the presence at the end of the block. If an exception ends the
    block, the presence has broken: it leaves after its `linger`. Dropping the handle does not end
    the presence.
    """

    __slots__ = ("_call", "_generation", "_tracked")

    def __init__(self, call: Callable[..., Any], tracked: Tracked) -> None:
        # `Portal.call`.
        self._call = call
        self._tracked = tracked
        self._generation = process.generation

    @property
    def active(self) -> bool:
        """Whether the owner tracks the presence under this handle, as `Tracked.active`."""
        if self._generation != process.generation:
            return False
        try:
            return bool(self._call(lambda: self._tracked.active))
        except NodeNotRunningError:
            return False

    def update(self, meta: Meta | Callable[[dict[str, Any]], Meta]) -> None:
        """Replace the meta in place, as `Tracked.update` does.

        Args:
            meta: The new meta, or a function from a copy of the old meta to the new one. The
                function runs in the event loop of the node and must not wait.

        Raises:
            NotTrackedError: The presence has ended.
        """
        if self._generation != process.generation:
            raise NotTrackedError("the presence belongs to the parent of this process")
        self._call(self._tracked.update, meta)

    def untrack(self) -> None:
        """End the presence. Idempotent; in a forked child this does nothing."""
        self._end(self._tracked.untrack)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end(self._tracked.__exit__, error_type, error, traceback)

    def _end(self, function: Callable[..., None], *arguments: object) -> None:
        if self._generation == process.generation:
            try:
                self._call(function, *arguments)
            except NodeNotRunningError:  # it has ended with the node
                return

    def __repr__(self) -> str:
        return f"<PortalTracked {self._tracked!r}>"
