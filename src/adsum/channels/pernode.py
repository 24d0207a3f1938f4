"""`PerNode`: finds the one object of a kind that all sockets of a node share.

The object observes the node, so the node keeps it alive, through all of its runs and in a forked
child. It is held weakly here: it refers to its node, so that a strong reference would keep both.
"""

from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import ReferenceType, WeakKeyDictionary, ref

from adsum.driver.observer import Observer
from adsum.node import Node

T = TypeVar("T", bound=Observer)


class PerNode(Generic[T]):
    """The objects of one kind, by node.

    Args:
        make: Makes the object of a node; it is then added to the observers of the node.
    """

    def __init__(self, make: Callable[[Node], T]) -> None:
        self._make = make
        self._found: WeakKeyDictionary[Node, ReferenceType[T]] = WeakKeyDictionary()

    def of(self, node: Node) -> T:
        """The object of a node, created at the first call."""
        reference = self._found.get(node)
        found = None if reference is None else reference()
        if found is None:
            found = self._make(node)
            self._found[node] = ref(found)
            node.observe(found)
        return found
