"""Client managers of python-socketio: its servers reach each other's clients over adsum.

A client manager of python-socketio knows the clients of its own process. The class that it extends
here sends each operation to the other processes, as a JSON text: an emit, a change of a room, a
disconnect, the answer to a callback. This file moves these texts as bytes on one topic.

Invariants:

- A text is decoded as JSON and never unpickled, so a member of the cluster can cause operations of
  Socket.IO in another process, and nothing else.
- All texts of a process arrive in the order of its calls, because a node keeps the order of its
  messages and all texts share one topic.
- A process receives texts from the moment at which its first client connects, or at which it emits
  with a callback. Before, it has no client and waits for no answer.
- Each loss that this process can know of is logged: other nodes that missed a text, a text of a
  process without clients that is alone in its cluster, unread texts that were dropped, and
  operations of other processes that cannot be applied. No operation of another process raises in
  python-socketio, which would log a traceback each time.
- A process without clients has a named cluster. An automatic one has the processes of one command,
  so a script would be alone there, and its emits would reach nobody.
"""

import base64
import logging
import os
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from adsum.arguments import flag, instance, refuse
from adsum.errors import AdsumError, ConfigurationError
from adsum.forks import call_after_fork
from adsum.node import Node
from adsum.portal import Portal, PortalSubscription
from adsum.pubsub import PubSub
from adsum.quoting import quoted
from adsum.sparselog import SparseLogger, error_text
from adsum.values.names import is_name

from .socketiooperations import checked_operation
from .unreadlog import UnreadLog

try:
    import socketio
    from socketio.async_pubsub_manager import AsyncPubSubManager
    from socketio.packet import EVENT, Packet
    from socketio.pubsub_manager import PubSubManager
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'adsum.integrations.socketio needs python-socketio: pip install "adsum[socketio]"',
        name=error.name,
    ) from error

__all__ = ["AdsumManager", "AsyncAdsumManager"]

#: Characters in a channel.
MAX_CHANNEL = 1000
#: Unread texts of other processes that wait in this one at most; beyond it the oldest are dropped.
MAX_UNREAD = 100_000
#: Bytes of unread texts that wait in this process at most; beyond it the oldest are dropped.
MAX_UNREAD_BYTES = 256 * 1024 * 1024
#: Modes of `socketio.Server` that replace threads, which a portal does not support.
_GREEN_MODES = ("eventlet", "gevent", "gevent_uwsgi")
#: The beginning of the topic; the channel follows.
_PREFIX = "socketio:"
#: Functions of a logger that python-socketio calls.
_LEVELS = ("debug", "info", "warning", "error", "exception")
#: States of other nodes that receive messages.
_RECEIVING = ("up", "suspect")

_logger = logging.getLogger("adsum.integrations.socketio")
_log = SparseLogger(_logger)


class _NodeEnded(BaseException):
    """Ends the loop of the base class, which handles each `Exception` and then goes on."""


class _Texts:
    """The part of both managers that neither sends nor waits."""

    json: Any
    server: Any
    write_only: bool
    initialize: Callable[[], None]
    rooms: dict[Any, dict[Any, Any]]
    callbacks: dict[Any, dict[int, Any]]
    # The node whose operation is applied.
    _sender = ""
    _unread: UnreadLog

    @property
    def host_id(self) -> str:
        """Identifies this process among those of the channel; a forked child has one of its own."""
        if os.getpid() == self._pid:
            return self._host_id
        return uuid.uuid5(uuid.NAMESPACE_OID, f"{self._host_id}:{os.getpid()}").hex

    @host_id.setter
    def host_id(self, value: str) -> None:
        self._host_id = value
        self._pid = os.getpid()

    def _encode(self, message: dict[str, Any]) -> bytes:
        """The text of an operation. Bytes in an answer become base64, as those of an emit are."""
        args = message.get("args")
        if args is not None and Packet.data_is_binary(list(args)):
            args, attachments = Packet.deconstruct_binary(list(args))
            encoded = [base64.b64encode(each).decode() for each in attachments]
            message = {**message, "args": [args, *encoded], "binary": True}
        text = self.json.dumps(message)
        return text if isinstance(text, bytes) else str(text).encode()

    def _decode(self, text: object, sender: str) -> dict[str, Any]:
        """The operation of a text; an empty one, which has no effect, if it cannot be applied."""
        try:
            message = checked_operation(self.json.loads(text), Packet.reconstruct_binary)
            self._check_applies(message)
        except Exception as error:  # of any JSON module
            self._drop(error, sender)
            return {}
        self._sender = sender
        return message

    def _check_applies(self, message: dict[str, Any]) -> None:
        """Check that an operation fits the clients and callbacks of this process.

        Raises:
            LookupError: There is no such callback.
            ValueError: The room is that of one client, which none enters and nobody closes.
        """
        method, room = message["method"], message.get("room")
        if method == "callback" and message["host_id"] == self.host_id:
            if message["id"] not in self.callbacks.get(message["sid"], ()):
                raise LookupError("no callback waits for this answer")
        elif method in ("enter_room", "close_room"):
            clients = self.rooms.get(message.get("namespace"), {}).get(None, ())
            if room in clients and room != message.get("sid"):
                raise ValueError(f"room {quoted(room)} is the id of a client")
        elif method == "emit" and message.get("callback"):
            # Its packets are encoded in tasks, whose errors the event loop would log.
            data = [message["event"], *message["data"]]
            self.server.packet_class(EVENT, data=data, id=1).encode()

    def _drop(self, error: Exception, sender: str) -> None:
        text = "an operation of node %s was dropped: %s"
        _log.warning(text, quoted(sender), error_text(error), key=sender)

    def _check_missed(self, message: dict[str, Any], missed: int) -> None:
        if missed:
            _log.warning("operation %r: %d of the other nodes missed it", message["method"], missed)

    def _log_unreached(self, message: dict[str, Any]) -> None:
        """Log an operation of a process without clients that no other node could receive."""
        _log.warning(
            "operation %r reached nobody: this process is alone in its cluster; the servers need "
            "the same `cluster` (ADSUM_CLUSTER) as this process",
            message["method"],
        )

    def _expect_answer(self, message: dict[str, Any]) -> None:
        """Receive texts from now on if an emit has a callback, also before the first client."""
        server = self.server
        if message.get("callback") and server is not None and not server.manager_initialized:
            server.manager_initialized = True
            self.initialize()


def _is_alone(node: Node) -> bool:
    """Whether no other node of the cluster receives messages."""
    return not any(member.status in _RECEIVING for member in node.members())


def _checked(node: Node, channel: str, write_only: bool, logger: Any, json: Any) -> dict[str, Any]:
    """The arguments of both managers for their base classes."""
    if logger is not None and not all(callable(getattr(logger, one, None)) for one in _LEVELS):
        refuse("logger", logger, f"None, or an object with the functions {', '.join(_LEVELS)}")
    if not is_name(channel, MAX_CHANNEL):
        refuse("channel", channel, f"a Unicode text of 1 to {MAX_CHANNEL:,} characters")
    if flag("write_only", write_only) and node.settings.cluster is None:
        raise ConfigurationError(
            "cluster: must be set on the node of a manager with write_only=True, or as "
            "ADSUM_CLUSTER, to the same name as in the servers; without it this process is in a "
            "cluster of its own command, and its emits reach nobody"
        )
    return {"channel": channel, "write_only": write_only, "logger": logger, "json": json}


class AsyncAdsumManager(_Texts, AsyncPubSubManager):  # type: ignore[misc]  # it has no types
    """Client manager of `socketio.AsyncServer` for several processes, over a node.

    The application runs the node, as it does for presences: from before the server accepts clients
    until after it has closed their connections. `Node.wrap_app` and `Node.lifespan` do so.

    Args:
        node: The node; its cluster has the other processes.
        channel: Servers with one channel reach each other's clients, 1 to 1,000 characters.
        write_only: Whether this process has no clients and only emits, without a server. Its node
            needs a `cluster`, the one of the servers.
        logger: A logger for the messages of python-socketio, if not that of the server.
        json: A module with `dumps` and `loads`, for a process with ``write_only=True``. Others use
            that of the server.

    Raises:
        ConfigurationError: An argument is wrong, or a write-only process has no `cluster`. A
            `socketio.Server` raises it if it is given this manager.

    Example:
        >>> import adsum, socketio
        >>> from adsum.integrations.socketio import AsyncAdsumManager
        >>> node = adsum.Node()
        >>> server = socketio.AsyncServer(
        ...     async_mode="asgi", client_manager=AsyncAdsumManager(node)
        ... )
        >>> app = node.wrap_app(socketio.ASGIApp(server))
    """

    name = "adsum"

    def __init__(
        self,
        node: Node,
        channel: str = "socketio",
        write_only: bool = False,
        logger: logging.Logger | None = None,
        json: Any = None,
    ) -> None:
        instance("node", node, Node, "an adsum.Node")
        super().__init__(**_checked(node, channel, write_only, logger, json))
        self._node = node
        self._pubsub = PubSub(node)
        self._unread = UnreadLog(_logger, MAX_UNREAD, MAX_UNREAD_BYTES)

    def set_server(self, server: Any) -> None:
        """Called by the server that is given this manager."""
        if isinstance(server, socketio.Server):
            refuse("client_manager", self, "an AdsumManager: this socketio.Server runs in threads")
        super().set_server(server)

    async def _publish(self, data: dict[str, Any]) -> None:
        self._expect_answer(data)
        missed = await self._pubsub.publish(_PREFIX + self.channel, self._encode(data))
        self._check_missed(data, missed)
        if self.write_only and not missed and _is_alone(self._node):
            self._log_unreached(data)

    async def _listen(self) -> AsyncIterator[dict[str, Any]]:
        try:
            subscription = self._pubsub.subscribe(
                _PREFIX + self.channel, limit=MAX_UNREAD, limit_bytes=MAX_UNREAD_BYTES
            )
            self._unread.begin()
            async for message in subscription:
                self._unread.check(subscription.dropped)
                yield self._decode(message.payload, message.sender)
        except AdsumError as error:  # the base class would try again at once, and block the loop
            _log.error("clients of this process receive nothing from other processes: %s", error)
        raise _NodeEnded

    async def _thread(self) -> None:
        """Apply texts until the node stops; the next client begins that again."""
        with suppress(_NodeEnded):
            await super()._thread()
        self.server.manager_initialized = False

    async def _handle_emit(self, message: dict[str, Any]) -> None:
        try:
            await super()._handle_emit(message)
        except Exception as error:  # of any encoding of packets
            if message.get("host_id") == self.host_id:
                raise  # to the caller in this process
            self._drop(error, self._sender)

    async def _handle_disconnect(self, message: dict[str, Any]) -> None:
        if self.server is not None:  # else this process has no clients
            await super()._handle_disconnect(message)


class AdsumManager(_Texts, PubSubManager):  # type: ignore[misc]  # it has no types
    """Client manager of `socketio.Server` and Flask-SocketIO for several processes, over a portal.

    The node of the portal starts when the first client connects, or at the first emit, in each
    process. So servers that fork their workers are supported.

    Args:
        portal: The portal; the cluster of its node has the other processes.
        channel: Servers with one channel reach each other's clients, 1 to 1,000 characters.
        write_only: Whether this process has no clients and only emits, without a server. Its node
            needs a `cluster`, the one of the servers.
        logger: A logger for the messages of python-socketio, if not that of the server.
        json: A module with `dumps` and `loads`, for a process with ``write_only=True``. Others use
            that of the server.

    Raises:
        ConfigurationError: An argument is wrong, or a write-only process has no `cluster`. A server
            raises it if it is given this manager and is a `socketio.AsyncServer`, or its mode is
            not that of threads.

    Example:
        >>> import adsum
        >>> from adsum.integrations.socketio import AdsumManager
        >>> with adsum.Portal(adsum.Node(cluster="shop")) as portal:
        ...     AdsumManager(portal, write_only=True).emit("news", {"text": "hi"}, room="lobby")
    """

    name = "adsum"

    def __init__(
        self,
        portal: Portal,
        channel: str = "socketio",
        write_only: bool = False,
        logger: logging.Logger | None = None,
        json: Any = None,
    ) -> None:
        instance("portal", portal, Portal, "an adsum.Portal")
        super().__init__(**_checked(portal.node, channel, write_only, logger, json))
        self._portal = portal
        self._pubsub = PubSub(portal.node)
        self._unread = UnreadLog(_logger, MAX_UNREAD, MAX_UNREAD_BYTES)
        # From the first call of `initialize` on.
        self._subscription: PortalSubscription | None = None
        # Held while the node starts, so that clients that connect meanwhile miss nothing.
        self._starting = threading.Lock()
        _managers.add(self)

    def set_server(self, server: Any) -> None:
        """Called by the server that is given this manager."""
        if isinstance(server, socketio.AsyncServer):
            refuse("client_manager", self, "an AsyncAdsumManager: this is a socketio.AsyncServer")
        if server.eio.async_mode in _GREEN_MODES:
            refuse("async_mode", server.eio.async_mode, "'threading': adsum runs in threads")
        super().set_server(server)

    def initialize(self) -> None:
        """Begin to receive texts; called by the server when its first client connects. Idempotent.

        Raises:
            NodeNotRunningError: The portal is closed, or its node has stopped.
            TimeoutError: The node has not started within the timeout of the portal.
        """
        try:
            with self._starting:
                self._begin()
        except Exception:
            self.server.manager_initialized = False
            raise

    def _begin(self) -> None:
        """Start the thread that receives, unless another thread has done so."""
        if not self.write_only:
            if self._subscription is not None and not self._subscription.closed:
                return  # two first clients have connected at one time
            self._subscription = self._portal.subscribe(
                _PREFIX + self.channel, limit=MAX_UNREAD, limit_bytes=MAX_UNREAD_BYTES
            )
            self._unread.begin()
        super().initialize()

    def pre_connect(self, eio_sid: str, namespace: str) -> Any:
        """Register a client; called by the server."""
        with self._starting:
            return super().pre_connect(eio_sid, namespace)

    def _publish(self, data: dict[str, Any]) -> None:
        self._expect_answer(data)
        missed, is_alone = self._portal.call(self._publish_at_node, self._encode(data))
        self._check_missed(data, missed)
        if self.write_only and is_alone:
            self._log_unreached(data)

    async def _publish_at_node(self, text: bytes) -> tuple[int, bool]:
        """Publish; returns how many nodes missed it, and whether there are no other nodes."""
        missed = await self._pubsub.publish(_PREFIX + self.channel, text)
        return missed, not missed and _is_alone(self._portal.node)

    def _listen(self) -> Iterator[dict[str, Any]]:
        if (subscription := self._subscription) is not None:
            for message in subscription:
                self._unread.check(subscription.dropped)
                yield self._decode(message.payload, message.sender)
        raise _NodeEnded

    def _thread(self) -> None:
        """Apply texts until the node stops; the next client begins that again."""
        with suppress(_NodeEnded):
            super()._thread()
        self.server.manager_initialized = False

    def _handle_emit(self, message: dict[str, Any]) -> None:
        try:
            super()._handle_emit(message)
        except Exception as error:  # of any encoding of packets
            if message.get("host_id") == self.host_id:
                raise  # to the caller in this process
            self._drop(error, self._sender)

    def _handle_disconnect(self, message: dict[str, Any]) -> None:
        if self.server is not None:  # else this process has no clients
            super()._handle_disconnect(message)

    def _forked(self) -> None:
        self._starting = threading.Lock()  # another thread of the parent may have held it
        if self.server is not None:
            self.server.manager_initialized = False  # the first client of the child begins


_managers: WeakSet[AdsumManager] = WeakSet()


def _after_fork() -> None:
    for manager in list(_managers):
        manager._forked()


call_after_fork(_after_fork)
