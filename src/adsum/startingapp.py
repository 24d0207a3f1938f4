"""ASGI applications whose node runs with them, also under servers that run no lifespan.

A server that runs the lifespan starts and stops the node with it, whether or not the application
has a lifespan of its own. Otherwise the first request starts the node, and the normal end of the
process stops it. The same applies after a lifespan that raised: ASGI lets the server go on without
it.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol

from adsum.arguments import refuse
from adsum.errors import AdsumError
from adsum.httpanswer import ASGIReceive, ASGISend, answer_http
from adsum.processexit import call_at_exit
from adsum.sparselog import SparseLog
from adsum.tasks import start_task

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
WrappedApp = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]

#: Seconds that the end of the process waits for the goodbye at most.
EXIT_TIMEOUT = 5.0


class Startable(Protocol):
    """The lifecycle of a node, see `Node`."""

    async def start(self) -> None:
        """Start the node, unless it runs in this event loop."""

    async def stop(self) -> None:
        """Stop the node. Idempotent."""

    def begin_stop(self) -> None:
        """Announce that `stop` follows."""

    @property
    def event_loop(self) -> tuple[asyncio.AbstractEventLoop, int] | None:
        """The event loop and the thread in which the node runs."""


class StartingApp:
    """An ASGI application that starts its node; see `Node.wrap_app`.

    Args:
        app: The application.
        node: Its node.

    Raises:
        ConfigurationError: `app` cannot be called.
    """

    def __init__(self, app: ASGIApp, node: Startable) -> None:
        if not callable(app):
            refuse("app", app, "an ASGI application")
        self._app = app
        self._node = node
        # The start under way in one event loop, which all requests that come meanwhile wait for.
        self._starting: asyncio.Task[None] | None = None
        # Whether the server runs the lifespan, so no request starts the node, not even after it.
        self._has_lifespan = False
        self._failures = SparseLog(
            logging.getLogger("adsum.node"),
            "the node was not started, so a request was refused: %s",
            logging.ERROR,
        )

    async def __call__(self, scope: Any, receive: ASGIReceive, send: ASGISend) -> None:
        """Serve a lifespan, a request or a connection."""
        if scope["type"] == "lifespan":
            await self._run_lifespan(scope, receive, send)
        elif scope["type"] not in ("http", "websocket") or await self._is_started():
            await self._app(scope, receive, send)
        else:
            await _refuse(scope, receive, send)

    # The first request.

    async def _is_started(self) -> bool:
        """Whether the node runs; if not, start it. Requests that are cancelled do not stop it."""
        loop, starting, place = asyncio.get_running_loop(), self._starting, self._node.event_loop
        runs_here = starting is None and place is not None and place[0] is loop
        if self._has_lifespan or runs_here:
            return True
        if starting is None or starting.get_loop() is not loop:
            starting = self._starting = start_task(self._start())
        try:
            await asyncio.shield(starting)
        except AdsumError as error:
            self._failures.log(error)
            return False
        return True

    async def _start(self) -> None:
        try:
            await self._node.start()
            call_at_exit(self._stop_at_exit)
        finally:
            self._starting = None

    def _stop_at_exit(self, **_: object) -> None:
        """Say goodbye at the normal end of the process, if the node still runs."""
        place = self._node.event_loop
        if place is None:
            return
        loop, thread = place
        with suppress(TimeoutError):  # the others take it for a crash
            if loop.is_running():  # in a daemon thread
                stopping = asyncio.run_coroutine_threadsafe(self._node.stop(), loop)
                stopping.result(EXIT_TIMEOUT)
            elif thread == threading.get_ident():
                loop.run_until_complete(asyncio.wait_for(self._node.stop(), EXIT_TIMEOUT))

    # The lifespan.

    async def _run_lifespan(self, scope: Any, receive: ASGIReceive, send: ASGISend) -> None:
        self._has_lifespan = True
        startup = await receive()
        try:
            await self._node.start()
        except AdsumError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        own = _OwnLifespan(startup, self._node, receive, send)
        try:
            if not await own.run(self._app, scope):
                await own.replace()
        except Exception:
            await self._node.stop()
            self._has_lifespan = own.ending
            raise
        finally:
            await self._node.stop()


class _OwnLifespan:
    """The lifespan of the application, within that of the node."""

    def __init__(
        self, startup: object, node: Startable, receive: ASGIReceive, send: ASGISend
    ) -> None:
        self._startup = startup
        self._node = node
        self._receive = receive
        self._send = send
        # Whether the application has received or sent a message.
        self._used = False
        #: Whether the server has ended the lifespan.
        self.ending = False

    async def run(self, app: ASGIApp, scope: Any) -> bool:
        """Run it to its end; returns False if the application has none."""
        try:
            await app(scope, self._next, self._pass)
        except Exception:
            if self._used:
                raise
        return self._used

    async def replace(self) -> None:
        """Answer the server for an application without a lifespan."""
        await self._send({"type": "lifespan.startup.complete"})
        await self._await_shutdown()
        await self._pass({"type": "lifespan.shutdown.complete"})

    async def _next(self) -> object:
        if not self._used:
            self._used = True
            return self._startup
        return await self._await_shutdown()

    async def _await_shutdown(self) -> object:
        message = await self._receive()
        self.ending = True
        self._node.begin_stop()
        return message

    async def _pass(self, message: Any) -> None:
        self._used = True
        if message["type"] != "lifespan.startup.complete":
            await self._node.stop()  # the process may end as soon as the server has the message
        await self._send(message)


async def _refuse(scope: Any, receive: ASGIReceive, send: ASGISend) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1013})  # try again later
        return
    headers = [(b"content-type", b"text/plain")]
    await answer_http(receive, send, 503, headers, b"the node is not running\n")
