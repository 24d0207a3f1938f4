"""`Owners`: finds the presences of an owner, to end them with it.

An owner is a task, None, or any other hashable object. For each owner the ids of its presences are
stored, and no handles: a handle belongs to its caller, and the garbage collector need not visit
half a million of them.
"""

import asyncio
import weakref
from collections.abc import Callable, Hashable
from enum import Enum
from typing import Any, NamedTuple

from adsum.errors import UsageError
from adsum.quoting import quoted
from adsum.replication.grace import PASSING, Claim
from adsum.values.names import Place


class _Owner(Enum):
    CURRENT_TASK = "the task that calls"

    def __repr__(self) -> str:
        return f"adsum.{self.name}"  # in the signatures that `help` and the reference show


CURRENT_TASK = _Owner.CURRENT_TASK

#: How an owner holds a presence: by its id; or by its id and its linger in seconds, if it has one
#: or was taken over. Each call of `track` that takes over makes a new pair, and holds are compared
#: by identity. So the handle of an earlier hold cannot end the presence of a later one.
Hold = int | tuple[int, float]
#: Holds of presences by place.
Owned = dict[Place, Hold]


class PassingOwner:
    """Base class of owners that never come back under the same identity, as no task does."""


class DeviceOwner:
    """An owner that never comes back itself; the next one of its device takes its presences over.

    Args:
        device: Identifies the device.
    """

    def __init__(self, device: str) -> None:
        self.device = device


class _Device(NamedTuple):
    """The heir of owners of one device; equal to no owner of an application."""

    name: str


def id_of(hold: Hold) -> int:
    """The id of a presence that is held."""
    return hold[0] if isinstance(hold, tuple) else hold


def linger_of(hold: Hold) -> float:
    """Seconds for which a presence that is held lingers when it breaks."""
    return hold[1] if isinstance(hold, tuple) else 0.0


def claim_of(owner: Hashable) -> Claim:
    """The claim of an owner to its presences that linger; it keeps no task alive."""
    if isinstance(owner, asyncio.Task | PassingOwner):
        return Claim(weakref.ref(owner), PASSING)
    if isinstance(owner, DeviceOwner):
        return Claim(weakref.ref(owner), _Device(owner.device))
    return Claim(owner, owner)


class Owners(dict[Hashable, Owned]):
    """The presences of each owner. Change it by `add`, `remove` and `clear` alone.

    Args:
        task_ended: Called when a task that owns presences has ended.
    """

    def __init__(self, task_ended: Callable[["asyncio.Task[Any]"], None]) -> None:
        super().__init__()
        self._task_ended = task_ended

    def add(self, owner: Hashable) -> Owned:
        """Register an owner without presences, for the caller to add one at once."""
        owned: Owned = {}
        self[owner] = owned
        if isinstance(owner, asyncio.Task):
            owner.add_done_callback(self._task_ended)
        return owned

    def remove(self, owner: Hashable) -> Owned:
        """Remove an owner; returns its presences."""
        if isinstance(owner, asyncio.Task):
            owner.remove_done_callback(self._task_ended)
        return self.pop(owner)

    def clear(self) -> None:
        """Remove all owners: the node has stopped."""
        # No owner is hashed: an object of the application may have changed its hash.
        owners = list(self)
        super().clear()
        for owner in owners:
            if isinstance(owner, asyncio.Task):
                owner.remove_done_callback(self._task_ended)

    def forget(self) -> None:
        """Drop all owners in a forked child: the tasks among them are the parent's."""
        super().clear()


def resolve_owner(owner: Hashable) -> Hashable:
    """The owner to store: the calling task for the default, otherwise the given object.

    Raises:
        TypeError: The owner is not hashable.
        UsageError: There is no calling task.
    """
    if owner is CURRENT_TASK:
        return _current_task()
    try:
        hash(owner)
    except TypeError:
        raise TypeError(f"owner={quoted(owner)}: must be hashable, as a session id") from None
    return owner


def describe_owner(owner: Hashable) -> str:
    """An owner in an error."""
    if isinstance(owner, asyncio.Task):
        return f"the task {owner.get_name()!r}"
    return "owner None" if owner is None else f"the owner {quoted(owner)}"


def _current_task() -> Hashable:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs
        task = None
    if task is None:
        raise UsageError(
            "owner: there is no current task; call from a coroutine, or pass owner= (None for none)"
        )
    return task
