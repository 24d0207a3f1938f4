"""`ClientAdmission`: decides whether a client may connect."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from adsum.activetime import active_timeout
from adsum.errors import NodeNotRunningError, RefusedError
from adsum.quoting import quoted

from .client import Client
from .socketparts import SocketParts
from .wire.connect import Scope, address_of, read_client
from .wire.frames import Serializer
from .wire.origins import Origins, RejectedError

logger = logging.getLogger("adsum.channels")

Connect = Callable[[Client], Awaitable[None]]

_REFUSED = "a client at %s was refused: %s"
#: Seconds of active time that `connect` may take.
CONNECT_TIMEOUT = 10.0


class ClientAdmission:
    """Checks new clients of a socket, and authorises them with the application's `connect`.

    Args:
        shared: Shared by all connections of the socket.
        connect: The function of the application; None accepts every client.
        origins: The sites that may connect.
    """

    def __init__(self, shared: SocketParts, connect: Connect | None, origins: Origins) -> None:
        self._shared = shared
        self._connect = connect
        self._origins = origins
        #: Number of clients that were refused.
        self.refused = 0
        # Whether it was logged that the node is not running; reset when it runs.
        self._closed_logged = False

    async def admit(
        self, scope: Scope, transport: str, gone: "asyncio.Future[Any]"
    ) -> tuple[Client, Serializer] | int:
        """Check the origin and version of a new client, then authorise it with `connect`.

        While `connect` runs, the client counts as connected. Create the `Connection` right after
        this call, so that the limit of connections holds.

        Args:
            scope: The ASGI scope.
            transport: ``websocket`` or ``longpoll``.
            gone: Done when the client has gone; `connect` is then cancelled.

        Returns:
            The client and its serializer, or the HTTP status of the refusal.
        """
        address = address_of(scope)
        try:
            version2 = self._shared.version2[transport]
            client, serializer = read_client(scope, self._origins, transport, version2)
        except RejectedError as error:
            self._shared.log.warning(_REFUSED, address, str(error), key=address)
            return self._refuse(403)
        if not self._is_open():
            return self._refuse(503)
        try:
            if self._connect is not None and not await self._decide(
                self._connect, client, gone, address
            ):
                return self._refuse(503)
        except RefusedError as error:
            why = quoted(error.response, 200)
            self._shared.log.log(logging.INFO, _REFUSED, address, why, key=address)
            return self._refuse(403)
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
                raise  # the server has cancelled the request
            self._shared.log.crashed(_REFUSED, address, "connect crashed", error=error)
            return self._refuse(403)
        if not self._is_open():  # again, since `connect` may have taken long
            return self._refuse(503)
        return client, serializer

    async def _decide(
        self, connect: Connect, client: Client, gone: "asyncio.Future[Any]", address: str
    ) -> bool:
        """Await `connect`; False if it timed out or the client has gone."""
        loop = asyncio.get_running_loop()
        self._shared.registry.admissions.add(gone)
        try:
            async with active_timeout(CONNECT_TIMEOUT) as timeout:

                def interrupt(_: object) -> None:
                    with contextlib.suppress(RuntimeError):  # `connect` ended in the same turn
                        timeout.reschedule(loop.time())

                gone.add_done_callback(interrupt)
                try:
                    await connect(client)
                finally:
                    gone.remove_done_callback(interrupt)
            return not gone.done()
        except TimeoutError:
            if not timeout.expired():
                raise
            if not gone.done():
                text = f"connect took longer than {CONNECT_TIMEOUT:g} s"
                self._shared.log.error(_REFUSED, address, text, key=address)
            return False
        finally:
            self._shared.registry.admissions.discard(gone)

    def _is_open(self) -> bool:
        try:
            self._shared.presence.node.check_running()
        except NodeNotRunningError as error:
            if not self._closed_logged:
                logger.error("all clients are refused: %s", error)
            self._closed_logged = True
            return False
        self._closed_logged = False
        if self._shared.registry.is_full:
            text = "a client was refused: there are %d connections already"
            self._shared.log.error(text, self._shared.limits.connections)
            return False
        return True

    def _refuse(self, status: int) -> int:
        self.refused += 1
        return status
