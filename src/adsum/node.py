"""This process's place in the cluster: its lifecycle, its settings, and what it knows of others."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from adsum.config import Settings, settle
from adsum.errors import NodeClosedError, UsageError, WrongThreadError
from adsum.replication.members import MemberInfo
from adsum.run import Observer, Run
from adsum.runtime import Runtime
from adsum.signals import add_stop_listener, remove_stop_listener
from adsum.transport.tls import TLS

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


class Node:
    """One process of a cluster.

    Constructing a node reads and checks its settings and does nothing else: it is safe at import,
    and before a fork. It runs between `start` and `stop`, in the event loop that `start` is called
    in, and may be started again later, in another loop if need be; each run is a new life with a
    name (unless one is given) and an incarnation of its own.

    Without arguments, the nodes that are started by the same command line in the same directory
    form one cluster, as the workers of one `uvicorn --workers 4` do.

    Every setting may also be given in the environment, as `ADSUM_NAME`, `ADSUM_LISTEN` and so on;
    lists are separated by commas. `docs/configuration.md` has the trade-offs.

    Args:
        name: Unique among the live nodes of the cluster; a restart under the same name replaces
            the former life at once. By default a new one is made for each run.
        cluster: Nodes of the same cluster name (and user, on one host) find each other.
        listen: Where to accept links from other hosts: ``host:port``, ``host:first-last``,
            ``[v6]:port``, ``unix:/path``, or a list. Port 0 takes any free one.
        peers: Addresses of other nodes; any one that is up is enough.
        advertise: Where others reach this node, if not at what it listens on (NAT).
        siblings: Whether to find nodes of the same cluster on this host by themselves.
        runtime_dir: The directory in which siblings find each other, absolute; it must exist. By
            default that of the user, wherever the process was started from.
        secret: Shared by all nodes; required, unless there is mutual TLS, for any address that
            other hosts can reach. At least 16 bytes.
        tls: Encrypts links over TCP, see `adsum.TLS`.
        linger: Seconds, from 0 to 3600, for which this node's presences are still shown after
            `stop`, and after their end while the node is about to stop (`begin_stop`), so that
            clients that reconnect elsewhere do not flicker.
        heartbeat_interval: Seconds between the signs of life to every other node.
        down_after: Seconds of silence after which a node is down; at least 3 heartbeats.
        link_grace: Seconds after which a node whose link was lost, and for which no other node
            vouches, is down.
        forget_after: Seconds for which a node that is down is remembered.
        coalesce_interval: Seconds during which changes under load are gathered before sending.

    Raises:
        ConfigurationError: A setting is wrong or contradicts another; names the field, the value
            and what is accepted.

    Example:
        >>> import asyncio, adsum
        >>> async def main():
        ...     async with adsum.Node(siblings=False) as node:
        ...         return [member.status for member in node.members()]
        >>> asyncio.run(main())
        ['self']
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        cluster: str | None = None,
        listen: str | list[str] | None = None,
        peers: str | list[str] | None = None,
        advertise: str | list[str] | None = None,
        siblings: bool | None = None,
        runtime_dir: str | None = None,
        secret: str | bytes | None = None,
        tls: TLS | None = None,
        linger: float | None = None,
        heartbeat_interval: float | None = None,
        down_after: float | None = None,
        link_grace: float | None = None,
        forget_after: float | None = None,
        coalesce_interval: float | None = None,
    ) -> None:
        given = {key: value for key, value in locals().items() if key != "self"}
        self.settings = settle(given)
        self._observers: list[Observer] = []
        self._runtime: Run | None = None
        # Where it runs; `adsum.testing` puts a simulated network in the place of sockets.
        self._make_run: Callable[[Settings, list[Observer]], Run] = Runtime
        self._thread = 0
        # The beginning of this run, while it is under way.
        self._opening: asyncio.Future[None] | None = None
        # The end of the run before, while it is under way.
        self._closing: asyncio.Task[None] | None = None

    # Lifecycle.

    async def start(self) -> None:
        """Join the cluster. Does nothing if the node runs already in this event loop.

        Returns as soon as the node listens; the others appear within milliseconds after.

        Raises:
            ListenError: An address cannot be listened on.
            UsageError: The node runs in another event loop.
            WrongThreadError: The node runs in the event loop of another thread.
        """
        await self._closed()
        if self._opening is not None and self._opening.get_loop() is asyncio.get_running_loop():
            await asyncio.shield(self._opening)
        if self._runtime is not None and not _is_closed(self._runtime.loop):
            self._check_thread()
            if self._runtime.loop not in (None, asyncio.get_running_loop()):
                raise UsageError("the node runs in another event loop; stop it there first")
            return
        if self._runtime is not None:  # its loop was closed without a stop
            self._runtime.abandon()
        runtime = self._make_run(self.settings, self._observers)
        self._runtime, self._thread = runtime, threading.get_ident()
        self._opening = asyncio.get_running_loop().create_future()
        try:
            await runtime.open()
        except BaseException:
            self._runtime = None
            await runtime.close()
            raise
        finally:
            self._opening.set_result(None)
            self._opening = None
        add_stop_listener(self.begin_stop)

    async def stop(self) -> None:
        """Say goodbye and leave: every presence of this node ends. Idempotent.

        Presences, watches and subscriptions have ended by the first time that this waits. If it is
        cancelled, the rest goes on without it.
        """
        runtime = self._runtime
        if runtime is not None:
            self._check_thread()
            remove_stop_listener(self.begin_stop)
            self._runtime = None
            self._closing = asyncio.create_task(runtime.close())
            await asyncio.sleep(0)
        await self._closed()

    def begin_stop(self) -> None:
        """Announce that `stop` follows, so that presences that end meanwhile linger.

        A presence that ends after this call is shown for `linger` more seconds, here and on the
        other nodes: as long as after `stop`. So clients whose connections are closed before the
        node stops can reconnect elsewhere without a leave. A process that is not stopped after all
        goes on like this until the next `start`.

        Under a server that handles SIGTERM or SIGINT the node notices these by itself. Call this
        where the process learns otherwise that it has to stop, before its connections are closed.
        Has no effect if `linger` is 0 or the node is not running. Idempotent, and safe in a signal
        handler and in any thread.
        """
        runtime = self._runtime
        if runtime is not None:
            runtime.stopping = True

    async def _closed(self) -> None:
        """Wait until the run before has ended."""
        closing = self._closing
        if closing is not None and closing.get_loop() is asyncio.get_running_loop():
            await asyncio.shield(closing)
        if self._closing is closing:
            self._closing = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """Run while an ASGI application runs: ``FastAPI(lifespan=node.lifespan)``.

        Args:
            app: The application; not used.
        """
        async with self:
            yield

    def wrap_lifespan(self, lifespan: Lifespan) -> Lifespan:
        """Your own lifespan, inside the node's: ``FastAPI(lifespan=node.wrap_lifespan(mine))``.

        The node is up before yours begins, and stops after yours has ended, on errors too. When
        the server ends yours, `begin_stop` has been called.
        """

        @asynccontextmanager
        async def combined(app: Any) -> AsyncIterator[Any]:
            async with self, lifespan(app) as state:
                try:
                    yield state
                finally:
                    self.begin_stop()

        return combined

    # What it knows.

    @property
    def running(self) -> bool:
        """Whether the node is started."""
        return self._runtime is not None

    @property
    def stopping(self) -> bool:
        """Whether the node runs and is about to stop: see `begin_stop`."""
        return self._runtime is not None and self._runtime.stopping

    @property
    def name(self) -> str:
        """The name in this run."""
        return self.runtime.replica.name

    @property
    def cluster(self) -> str:
        """The name of the cluster."""
        return self.runtime.cluster

    @property
    def address(self) -> str | None:
        """The first address that the node listens on, with the port that it got."""
        addresses = self.runtime.addresses
        return addresses[0] if addresses else None

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every address that the node listens on."""
        return self.runtime.addresses

    def members(self) -> list[MemberInfo]:
        """The nodes that this one knows of, itself included, by name."""
        address = self.address or ""
        return [
            replace(member, address=address) if member.status == "self" else member
            for member in self.runtime.engine.members()
        ]

    def stats(self) -> dict[str, int]:
        """Counters and gauges, for metrics: cheap enough to be read every second.

        Returns:
            ``members_up`` (this node included), ``members_down``, ``links``, ``topics``,
            ``entries`` (shown here), ``own_entries``, ``lag`` (changes heard of, not yet here),
            ``frames_sent``, ``frames_received``, ``bytes_sent``, ``bytes_received`` (before
            compression) and ``dropped_messages`` (published, but not to a member that does not
            read). Counters begin at zero with each `start`.
        """
        runtime = self.runtime
        members = runtime.engine.members()
        up = [member for member in members if member.status in ("self", "up", "suspect")]
        return {
            "members_up": len(up),
            "members_down": len(members) - len(up),
            "links": runtime.engine.links,
            "topics": len(runtime.engine.view.topics),
            "entries": runtime.engine.shown,
            "own_entries": len(runtime.engine.own_slice.entries),
            "lag": sum(member.lag for member in members),
            "frames_sent": runtime.frames_sent,
            "frames_received": runtime.frames_received,
            "bytes_sent": runtime.bytes_sent,
            "bytes_received": runtime.bytes_received,
            "dropped_messages": runtime.dropped_messages,
        }

    # For what is built on the node.

    @property
    def runtime(self) -> Run:
        """The present run.

        Raises:
            NodeClosedError: The node is not running.
            WrongThreadError: This is not the thread of its event loop.
        """
        if self._runtime is None:
            raise NodeClosedError("the node is not running; use `async with node:` or its lifespan")
        if self._thread != threading.get_ident():
            self._check_thread()
        return self._runtime

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Who is told of what happens."""
        return tuple(self._observers)

    def observe(self, observer: Observer) -> None:
        """Tell somebody of what happens, in this and in every later run."""
        self._observers.append(observer)

    def _check_thread(self) -> None:
        if self._thread != threading.get_ident():
            raise WrongThreadError(
                "a node may be used only in the thread of its event loop; make the caller "
                "`async def`, or use loop.call_soon_threadsafe()"
            )


def _is_closed(loop: asyncio.AbstractEventLoop | None) -> bool:
    return loop is not None and loop.is_closed()
