"""`Disconnects`: the connections of a node by their id, and requests to close them on all nodes."""

from functools import partial
from typing import Protocol

from adsum.driver.observer import Observer
from adsum.node import Node
from adsum.replication.messages import Publish
from adsum.values.jsontext import dump, load
from adsum.values.limits import MAX_NAME
from adsum.values.names import RESERVED, checked_name

from .flow.fairshare import WORK, FairShare
from .pernode import PerNode

#: Topic of the messages between nodes.
_TOPIC = f"{RESERVED}channels/disconnect"


class Closable(Protocol):
    """A connection with an id, or without one."""

    id: str | None
    share: FairShare

    def close(self, code: int, reason: str) -> None:
        """Close the connection. Idempotent."""


class Disconnects(Observer):
    """Closes the connections of an id, over all sockets of this node and on every other node.

    Args:
        node: The node that carries the requests.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._by_id: dict[str, set[Closable]] = {}

    @staticmethod
    def of(node: Node) -> "Disconnects":
        """The object of a node, created at the first call."""
        return _DISCONNECTS.of(node)

    def add(self, connection: Closable) -> None:
        """Close a connection when its id is disconnected."""
        if connection.id is not None:
            self._by_id.setdefault(connection.id, set()).add(connection)

    def remove(self, connection: Closable) -> None:
        """Forget a connection that has ended. Idempotent."""
        if connection.id in self._by_id:
            self._by_id[connection.id].discard(connection)
            if not self._by_id[connection.id]:
                del self._by_id[connection.id]

    def disconnect(self, id: str) -> None:
        """Close every connection with an id, on every node.

        Raises:
            NodeNotRunningError: The node is not running.
        """
        checked_name(id, "id", MAX_NAME)
        message = Publish(_TOPIC, "disconnect", dump({"id": id}))
        # Over links, which repeat a lost frame: an account that is locked must not stay connected.
        self._node.driver.post(message, None, over_links=True)
        self._disconnect(id)

    def delivered(self, sender: str, message: Publish) -> None:
        """See `Observer`."""
        if message.topic == _TOPIC and isinstance(message.payload, str):
            self._disconnect(load(message.payload).get("id"))

    def forked(self) -> None:
        """See `Observer`: the clients are connected to the parent."""
        self._by_id = {}

    def _disconnect(self, id: object) -> None:
        for connection in list(self._by_id.get(str(id), ())):
            connection.share.call(WORK, partial(connection.close, 1000, "disconnected"))


_DISCONNECTS = PerNode(Disconnects)
