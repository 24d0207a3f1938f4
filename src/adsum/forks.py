"""Fork safety: a child process inherits its parent's nodes, and must neither use nor hold them.

A fork copies the memory and the descriptors of a process. The copied descriptors keep connections
and ports of the parent open after its death, and an event loop in the child shares its epoll set,
its connections and the files of its sockets with the parent.

One handler, registered when this module is imported, does two things in every forked child:

- It replaces each descriptor of a private socket with one of /dev/null, and detaches the socket
  object. It calls no event loop, because removing a descriptor from the shared epoll set removes it
  for the parent; and no TLS, because a close_notify would end the parent's session. It replaces
  instead of closing, because event loops keep descriptors as numbers. A number that was closed and
  reused would let an inherited loop close or watch a file of the child.
- It counts the fork. An object of one process stores the `generation` in which it was made, and in
  a child the two differ. The object itself is not changed, so its memory pages stay shared.
"""

import os
import socket
import stat
from collections.abc import Callable
from weakref import WeakSet


class CurrentProcess:
    """The current process, either the parent or a forked child."""

    __slots__ = ("generation",)

    def __init__(self) -> None:
        #: Number of forks between the first process that imported this module and this one.
        self.generation = 0


process = CurrentProcess()
# Weak references, because a collected socket is closed.
_private: WeakSet[socket.socket] = WeakSet()


def call_after_fork(function: Callable[[], object]) -> None:
    """Call a function in every forked child, after those that were registered before it."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


def private(sock: socket.socket) -> socket.socket:
    """Make a socket private to this process: forked children do not hold it open.

    Args:
        sock: A socket that was just created or accepted.

    Returns:
        The same socket. In a child, its descriptor is detached: `fileno()` is -1.
    """
    _private.add(sock)
    return sock


class PrivateDescriptor:
    """Makes the socket of a library private to this process: forked children do not hold it open.

    The library keeps its socket to itself, so only its number is known here. A number may have
    been reused, so a child replaces it only if it is still the same socket.

    Args:
        number: The descriptor of an open socket.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._inode = os.fstat(number).st_ino
        _descriptors.add(self)

    def release(self) -> None:
        """Forget the descriptor, before its socket is closed. Idempotent."""
        _descriptors.discard(self)

    def inherited(self) -> int | None:
        """The number, if it is still the same socket."""
        try:
            status = os.fstat(self._number)
        except OSError:
            return None
        same = stat.S_ISSOCK(status.st_mode) and status.st_ino == self._inode
        return self._number if same else None


# Strong references: `release` ends each.
_descriptors: set[PrivateDescriptor] = set()


def _after_fork() -> None:
    process.generation += 1
    sockets, descriptors = list(_private), list(_descriptors)
    _private.clear()
    _descriptors.clear()
    inherited = [descriptor for sock in sockets if (descriptor := sock.detach()) >= 0]
    inherited += [number for each in descriptors if (number := each.inherited()) is not None]
    if inherited:
        _replace(inherited)


def _replace(descriptors: list[int]) -> None:
    """Replace descriptors with /dev/null; if that cannot be opened, only close them."""
    first, *rest = descriptors
    os.close(first)  # makes room: the process may have no descriptor left
    try:
        null = os.open(os.devnull, os.O_RDWR)
    except OSError:
        for descriptor in rest:
            os.close(descriptor)
        return
    for descriptor in descriptors:
        if descriptor != null:
            os.dup2(null, descriptor, inheritable=False)
    if null not in descriptors:
        os.close(null)


call_after_fork(_after_fork)
