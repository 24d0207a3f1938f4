"""`Tracked`: the handle to one presence of this node, and the checks of its meta."""

import asyncio
from collections.abc import Callable, Hashable, Mapping
from types import TracebackType
from typing import Any, Self

from adsum.endings import Endings
from adsum.errors import NodeNotRunningError, NotTrackedError, UsageError
from adsum.owners import Hold, id_of
from adsum.quoting import quoted
from adsum.replication.entry import META, Entry
from adsum.values.jsontext import encode_object, load
from adsum.values.limits import MAX_META
from adsum.values.names import Place

Meta = Mapping[str, Any]
_RESERVED = ("phx_ref", "phx_ref_prev")


class Tracked:
    """A handle to one tracked presence of this node, returned by `Presence.track`.

    As a context manager it untracks the presence at the end of the block. If an exception ends the
    block, the presence has broken: it leaves after its `linger`.
    """

    __slots__ = ("_endings", "_hold", "_owner", "_place", "_run")

    def __init__(
        self, endings: Endings, owner: Hashable, place: Place, hold: Hold, run: object
    ) -> None:
        self._endings = endings
        self._owner = owner
        self._place = place
        self._hold = hold
        # The token of the run that the presence belongs to.
        self._run = run

    @property
    def active(self) -> bool:
        """Whether the owner tracks the presence under this handle.

        False once the presence has ended, lingers, or was tracked again by a later call.
        """
        return self._entry() is not None

    def update(self, meta: Meta | Callable[[dict[str, Any]], Meta]) -> None:
        """Replace the meta in place: no observer sees the key leave.

        Args:
            meta: The new meta, or a function from a copy of the old meta to the new one.

        Raises:
            NotTrackedError: The presence has ended.
            TypeError: The meta is not a JSON object; the message names the path.
            ValueError: The meta is not finite, too deep or too large.
        """
        old = self._entry()
        if old is None:
            self._endings.node.check_process()
            raise NotTrackedError(f"{self._shown_place()} has ended")
        if callable(meta):
            meta = meta(load(old[META]))
            if not isinstance(meta, dict):
                raise TypeError(f"meta: the function must return the new meta, not {quoted(meta)}")
            if self._entry() is not old:
                raise UsageError("meta: the function must not change the presence itself")
        text = encode_meta(meta)
        self._endings.node.driver.update(old, text)

    def untrack(self) -> None:
        """End the presence. Idempotent, also after its owner or its node has ended.

        The presence leaves at once, also if it lingers because it broke. If the node is about to
        stop, it leaves after the `linger` of the node. A presence that was tracked again by a later
        call is left as it is.
        """
        entry = self._entry()
        if entry is None:
            self._endings.end_grace(self._hold, self._run)
        else:
            self._endings.end_owned(entry, self._owner, self._place, broken=False, cancelled=False)

    def __repr__(self) -> str:
        # Callable in any thread. Meta and owner belong to the application and are not shown.
        state = "active" if self._endings.node.running and self._is_owned() else "ended"
        return f"<Tracked {self._shown_place()}, {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error_type is None:
            self.untrack()
        elif (entry := self._entry()) is not None:
            cancelled = issubclass(error_type, asyncio.CancelledError)
            self._endings.end_owned(
                entry, self._owner, self._place, broken=True, cancelled=cancelled
            )

    def _entry(self) -> Entry | None:
        """The current entry of the presence; None once the presence or its run has ended."""
        if not self._is_owned():
            return None  # it may linger, but it has ended
        try:
            driver = self._endings.node.driver
        except NodeNotRunningError:  # the node is stopped, or runs in the parent of this process
            return None
        if driver.loop is not None and driver.loop.is_closed():  # the run has ended without a stop
            return None
        return driver.tracked(id_of(self._hold)) if driver.token is self._run else None

    def _is_owned(self) -> bool:
        """Whether the owner still owns the presence, in this run of the node or an earlier one."""
        owned = self._endings.owners.get(self._owner)
        return owned is not None and owned.get(self._place) is self._hold

    def _shown_place(self) -> str:
        topic, key = self._place
        return f"{quoted(key)} on {quoted(topic)}"


def encode_meta(meta: object) -> str:
    """A meta as JSON text, without the keys that are reserved for adsum.

    Raises:
        TypeError: The meta is not a JSON object; the message names the path.
        ValueError: The meta is not finite, too deep or too large.
    """
    if isinstance(meta, dict) and ("phx_ref" in meta or "phx_ref_prev" in meta):
        meta = {key: value for key, value in meta.items() if key not in _RESERVED}
    return encode_object(meta, "meta", MAX_META)
