"""The node: the lifecycle, the settings and the member list of one process in a cluster."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Self

from adsum.arguments import seconds_from_zero
from adsum.config import Settings, resolve_settings
from adsum.driver.carrierdriver import CarrierDriver
from adsum.driver.driver import Driver, logger
from adsum.driver.observer import Observer
from adsum.driver.socketdriver import SocketDriver
from adsum.errors import NodeNotRunningError, UsageError, WrongThreadError
from adsum.forks import process
from adsum.lifespan import Lifespan, wrapped
from adsum.memberswatch import MembersFeed, MembersWatch
from adsum.quoting import quoted
from adsum.replication.memberinfo import MemberInfo
from adsum.signals import add_stop_listener, remove_stop_listener
from adsum.startingapp import ASGIApp, StartingApp, WrappedApp
from adsum.tasks import resolve
from adsum.transport.tls import TLS

_STOPPED_WHILE_JOINING = "the node was stopped while joining"
_STOPPED = "the node is not running: it has stopped"
_NEVER_STARTED = (
    "the node is not running: it was never started. Give the application `lifespan=node.lifespan` "
    "and run it under a server that runs the lifespan, or use `async with node:`. Daphne runs no "
    "lifespan: serve `node.wrap_app(app)` there, see docs/deployment.md#servers-without-lifespan. "
    "Threads, scripts and shells use `adsum.Portal(node)`, see docs/threads-and-wsgi.md"
)

#: Makes the driver of a run, see `Node.use_driver`.
MakeDriver = Callable[[Settings, list[Observer]], Driver]


class Node:
    """One process of a cluster.

    Constructing a node reads and checks its settings and does nothing else: it is safe at import,
    and before a fork. The node runs between `start` and `stop`, in the event loop of `start`. In a
    child that was forked meanwhile it does not run until `start` is called there.

    It may be started again later, also in another loop. Each run has a new incarnation, and a new
    name unless one is given.

    Without arguments, the nodes that are started by the same command line in the same directory
    form one cluster, as the workers of one `uvicorn --workers 4` do.

    `driver`, `event_loop`, `observe`, `stop_observing`, `use_driver`, `attach`, `detach` and
    `check_process` are for code that is built on a node, as `Presence` is, and not for
    applications.

    Every setting may also be given in the environment, as `ADSUM_NAME`, `ADSUM_LISTEN` and so on;
    lists are separated by commas. `docs/configuration.md` has the trade-offs.

    Args:
        name: Unique among the live nodes of the cluster; a restart under the same name replaces
            the former incarnation at once. By default each run gets a new name.
        cluster: Nodes of the same cluster name (and user, on one host) find each other.
        listen: Where to accept links from other hosts: ``host:port``, ``host:first-last``,
            ``[v6]:port``, ``unix:/path``, or a list. Port 0 takes any free port.
        peers: Addresses of other nodes; one node that is up is enough.
        advertise: Addresses at which other nodes reach this one, if they differ from `listen`
            (NAT).
        carrier: The URL of a NATS or Redis server, ``nats://host:4222`` or ``redis://host:6379``,
            that carries the links to other hosts, in place of `listen` and `peers`. Requires
            `cluster` and `secret`.
        carrier_grace: Seconds, from 0 to 3600, for which the other nodes stay listed while the
            carrier is away.
        siblings: Whether to discover nodes of the same cluster on this host automatically.
        runtime_dir: The directory in which siblings find each other, absolute; it must exist. By
            default that of the user, regardless of the working directory of the process.
        secret: Shared by all nodes; required, unless there is mutual TLS, for any address that
            other hosts can reach. At least 16 bytes.
        tls: Encrypts links over TCP, see `adsum.TLS`.
        linger: Seconds, from 0 to 3600, for which this node's presences are still shown after
            `stop`, and after their end while the node is about to stop (`begin_stop`). So clients
            that reconnect elsewhere do not flicker.
        join_timeout: Seconds without progress, from 0 to 3600, after which `start` returns although
            the node has not joined; at most five times as many in all. 0: `start` does not wait.
        heartbeat_interval: Seconds between two heartbeats to every other node.
        down_after: Seconds of silence after which a node is down; at least 3 heartbeats.
        link_grace: Seconds after which a node with a lost link is down if no other node vouches
            for it.
        forget_after: Seconds for which a node that is down is remembered.
        coalesce_interval: Seconds for which changes under load are collected before sending.

    Raises:
        ConfigurationError: A setting is wrong or contradicts another; the message names the field,
            the value and the accepted values.

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
        carrier: str | None = None,
        carrier_grace: float | None = None,
        siblings: bool | None = None,
        runtime_dir: str | None = None,
        secret: str | bytes | None = None,
        tls: TLS | None = None,
        linger: float | None = None,
        join_timeout: float | None = None,
        heartbeat_interval: float | None = None,
        down_after: float | None = None,
        link_grace: float | None = None,
        forget_after: float | None = None,
        coalesce_interval: float | None = None,
    ) -> None:
        given = {key: value for key, value in locals().items() if key != "self"}
        self.settings = resolve_settings(given)
        self._observers: list[Observer] = []
        self._driver: Driver | None = None
        # Whether `start` was ever called; if not, the server may have run no lifespan.
        self._was_started = False
        # Makes the driver of each run.
        self._make_driver: MakeDriver = _make_driver
        # The id of the thread in which the node runs; valid while it runs.
        self._thread = 0
        # Set while `start` is under way; its result is whether `stop` ended it.
        self._opening: asyncio.Future[bool] | None = None
        # Passes changes of the members to their watches; set while there are any.
        self._members_feed: MembersFeed | None = None
        # The previous run and the task that closes it; set while that task is under way.
        self._closing: tuple[Driver, asyncio.Task[None]] | None = None

    # Lifecycle.

    async def start(self) -> None:
        """Start the node and join the cluster. Does nothing if it runs already in this event loop.

        Returns once the node has *joined*: it has a link to each member that it can dial, receives
        the other members' presences through these, and lists all presences that they list. So the
        first `list` is complete, and the first `publish` is sent to every member that can be
        linked. Returns at once if there is no sibling and no peer. The node listens while it joins,
        so nodes that start together find each other.

        Returns without having joined, with a logged warning, after `join_timeout` seconds without
        progress, or five times as many in all. Then the node runs, and `joined` is False until the
        missing nodes have answered.

        A second call while the first one waits returns with it. Cancelling the call that started
        the node stops it.

        In a forked child of the process that runs the node, this starts an incarnation of the
        child. If the event loop of the previous run was closed without `stop`, that run ends first:
        its presences, watches and subscriptions have ended, its addresses are free, and peers lose
        their links.

        Raises:
            ListenError: An address cannot be listened on.
            CarrierError: The carrier cannot be reached.
            NodeNotRunningError: The node was stopped while it joined.
            UsageError: The node runs in another event loop.
            WrongThreadError: The node runs in the event loop of another thread.
        """
        self._was_started = True
        self._leave_to_parent()
        loop = asyncio.get_running_loop()
        while self._closing is not None or self._is_opening(loop):
            await self._closed()
            await self._opened(loop)
        if self._driver is not None and not _is_closed(self._driver.loop):
            self._check_thread()
            if self._driver.loop not in (None, loop):
                raise UsageError("the node runs in another event loop; stop it there first")
            return
        self._abandon()
        driver = self._begin(threading.get_ident())
        self._opening = opening = loop.create_future()
        try:
            await driver.open()
            if self._driver is not driver:
                raise NodeNotRunningError(_STOPPED_WHILE_JOINING)
        except (Exception, asyncio.CancelledError) as error:
            if self._driver is driver:
                self._close(driver)
                await self._closed()
            elif isinstance(error, Exception):
                raise NodeNotRunningError(_STOPPED_WHILE_JOINING) from None
            raise
        finally:
            if self._opening is opening:
                self._opening = None
            resolve(opening, False)
        add_stop_listener(self.begin_stop, driver.loop)

    async def stop(self) -> None:
        """Send a goodbye and stop the node: all its presences end. Idempotent.

        In a forked child of the process that runs the node, this does nothing.

        Presences, watches and subscriptions have ended before this first waits. If the call is
        cancelled, stopping goes on without it. Calls of `start` that wait for the node to join, and
        calls of `wait_joined`, raise `NodeNotRunningError`. If the event loop of the run is closed,
        the run ends without a goodbye, as by a crash.
        """
        driver = self._driver
        if driver is not None and not driver.inherited and _is_closed(driver.loop):
            self._abandon()
        elif driver is not None and not driver.inherited:
            self._check_thread()
            remove_stop_listener(self.begin_stop)
            self._close(driver)
            resolve(self._opening, True)
            self._opening = None
            await asyncio.sleep(0)
        await self._closed()

    def begin_stop(self) -> None:
        """Announce that `stop` follows, so that presences that end meanwhile linger.

        A presence that ends after this call is shown for `linger` more seconds, here and on the
        other nodes: as long as after `stop`. So clients that lose their connections before the node
        stops can reconnect elsewhere without a leave. If the process is not stopped after all,
        presences linger like this until the next `start`. Instances of `Services` do not linger:
        this call withdraws them.

        Under a server that handles SIGTERM or SIGINT the node notices these by itself. If the
        process learns in another way that it has to stop, call this before its connections are
        closed. Has no effect if `linger` is 0 or the node is not running. Idempotent, and safe in a
        signal handler and in any thread.
        """
        driver = self._driver
        if driver is not None:
            driver.begin_stop()

    def _close(self, driver: Driver) -> None:
        """Begin to close a run."""
        self._driver = None
        # An eager start of the task does no harm: presences and watches end even sooner.
        task = asyncio.create_task(driver.close())
        task.add_done_callback(partial(_free, driver))
        self._closing = driver, task

    def _is_opening(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether a `start` is under way in this event loop."""
        return self._opening is not None and self._opening.get_loop() is loop

    async def _opened(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait for the end of a `start` that is under way in this event loop."""
        opening = self._opening if self._is_opening(loop) else None
        if opening is not None and await asyncio.shield(opening):
            raise NodeNotRunningError(_STOPPED_WHILE_JOINING)

    def _leave_to_parent(self) -> None:
        """In a forked child, forget the run of the parent."""
        if self._driver is not None and self._driver.inherited:
            self._driver.leave_to_parent()
            self._driver = self._opening = self._closing = None

    def _abandon(self) -> None:
        """Give up a run after its event loop was closed without a stop."""
        if self._driver is not None:
            remove_stop_listener(self.begin_stop)
            self._driver.abandon()
            self._driver = None

    async def _closed(self) -> None:
        """Wait until the previous run has ended, even if the task that closes it was cancelled."""
        closing = self._closing
        if closing is None:
            return
        driver, task = closing
        if task.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([task])
        elif task.get_loop().is_closed():
            driver.abandon()
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
        """Run the node during the lifespan of an ASGI app: ``FastAPI(lifespan=node.lifespan)``.

        The server accepts clients once the node has joined, or `start` has given up waiting.

        Args:
            app: The application; not used.
        """
        async with self:
            yield

    def wrap_lifespan(self, lifespan: Lifespan) -> Lifespan:
        """Wrap your own lifespan in the node's: ``FastAPI(lifespan=node.wrap_lifespan(mine))``.

        The node is up before your lifespan begins, and stops after it has ended, on errors too.
        When the server ends your lifespan, `begin_stop` has been called.

        Args:
            lifespan: A function of the application that returns an asynchronous context manager,
                as one decorated with `contextlib.asynccontextmanager` does.

        Raises:
            ConfigurationError: `lifespan` is anything else.
        """
        return wrapped(lifespan, self, self.begin_stop)

    def wrap_app(self, app: ASGIApp) -> WrappedApp:
        """Wrap an ASGI application so that the node runs with it, under any server.

        For servers that run no lifespan, such as Daphne, and for applications that have none, such
        as those of Django. Does no harm elsewhere.

        Under a server that runs the lifespan, the node runs during it, around the lifespan of the
        application. Otherwise, and after a lifespan that raised, the first request or connection
        starts the node. All that come meanwhile wait for the same start, and if one of them is
        cancelled, the start goes on. If it fails, they are answered with status 503 (connections
        with 403) and one line is logged; the next request tries again. The node then stops with a
        goodbye at the normal end of the process, SIGTERM to Daphne included.

        Args:
            app: The application; any scope but a lifespan is passed on to it unchanged.

        Returns:
            The application to serve.

        Raises:
            ConfigurationError: `app` cannot be called.

        Example:
            >>> import adsum
            >>> async def app(scope, receive, send): ...
            >>> application = adsum.Node(siblings=False).wrap_app(app)
        """
        return StartingApp(app, self)

    # State and members.

    @property
    def running(self) -> bool:
        """Whether the node has been started and not stopped; False in a child forked since."""
        return self._driver is not None and not self._driver.inherited

    @property
    def stopping(self) -> bool:
        """Whether the node runs and is about to stop; see `begin_stop`."""
        driver = self._driver
        return driver is not None and not driver.inherited and driver.stopping

    @property
    def joined(self) -> bool:
        """Whether the node runs and has joined, see `start`; stays true until it stops."""
        driver = self._driver
        return driver is not None and not driver.inherited and driver.joined

    async def wait_joined(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109  # see Returns
        """Wait until the node has joined, after a `start` that returned before.

        `start` returns early after `join_timeout`, and at once if that is 0. Cancelling this call
        has no effect on the node.

        Args:
            timeout: Seconds to wait at most, from 0; None waits without a bound. In a simulated
                cluster too they are seconds of the event loop, in which no virtual time passes.

        Returns:
            Whether the node has joined.

        Raises:
            ConfigurationError: `timeout` is negative, or not a number.
            NodeNotRunningError: The node is not running, or was stopped meanwhile.
            WrongThreadError: This is not the thread of its event loop.
        """
        if timeout is not None:
            seconds_from_zero("timeout", timeout)
        return await self.driver.wait_joined(timeout)

    @property
    def name(self) -> str:
        """The name of the node in this run."""
        return self.driver.replica.name

    @property
    def cluster(self) -> str:
        """The name of the cluster."""
        return self.driver.cluster

    @property
    def address(self) -> str | None:
        """The first address that the node listens on, with its actual port; None without one."""
        addresses = self.driver.addresses
        return addresses[0] if addresses else None

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every address that the node listens on."""
        return self.driver.addresses

    def members(self) -> list[MemberInfo]:
        """The known nodes of the cluster, this one included, sorted by name."""
        return self.driver.members()

    def watch_members(self) -> MembersWatch:
        """Watch the member list: an asynchronous iterator of joined, left and changed members.

        The watch begins at this call. The first diff comes at once, with all members as joined.
        Each later diff has the changes since the one before; for a slow reader several are merged,
        so no queue grows. It costs nothing while nobody watches.

        Raises:
            NodeNotRunningError: The node is not running.
            WrongThreadError: This is not the thread of its event loop.

        Example:
            >>> import asyncio, adsum
            >>> async def main():
            ...     async with adsum.Node(name="web-1", siblings=False) as node:
            ...         async for diff in node.watch_members():
            ...             return [(member.name, member.status) for member in diff.joined]
            >>> asyncio.run(main())
            [('web-1', 'self')]
        """
        driver = self.driver
        feed = self._members_feed
        if feed is None:
            feed = self._members_feed = MembersFeed(driver, self._members_feed_ended)
            self.observe(feed)
        return feed.watch()

    def _members_feed_ended(self, feed: MembersFeed) -> None:
        self.stop_observing(feed)
        if self._members_feed is feed:
            self._members_feed = None

    def stats(self) -> dict[str, int]:
        """Counters and gauges, for metrics: cheap enough to be read every second.

        Returns:
            ``members_up`` (this node included), ``members_down``, ``links``, ``topics``,
            ``presences`` (shown here), ``own_presences``, ``lingering_presences`` (own ones whose
            owners are gone), ``lag_changes`` (changes announced by members and not yet received),
            ``sent_frames_total``, ``received_frames_total``, ``sent_bytes_total``,
            ``received_bytes_total`` (before compression), ``missed_messages_total`` (published
            messages that a member missed, counted for each member: it had no link, or did not
            read) and ``incomplete_messages_total`` (received messages of bytes that were dropped,
            because only a part of them arrived or too many were under way); with a carrier, also
            ``carrier_connected`` (1 or 0). Counters begin at zero with each `start`.
        """
        return self.driver.counters()

    def __repr__(self) -> str:
        # Callable in any thread, so it reads nothing that another thread could change meanwhile.
        run = self._driver
        if run is None or run.inherited:
            state = "not running" if run is None else "left to the parent of this process"
            name = self.settings.name
            return f"<Node {'without a name' if name is None else quoted(name)}, {state}>"
        state = "stopping" if run.stopping else "running" if run.joined else "joining"
        at = f", at {quoted(run.addresses[0])}" if run.addresses else ""
        return f"<Node {quoted(run.replica.name)} of cluster {quoted(run.cluster)}, {state}{at}>"

    # For code that is built on the node.

    @property
    def driver(self) -> Driver:
        """The current run.

        Raises:
            NodeNotRunningError: The node is not running, or it runs in the parent of this process.
            WrongThreadError: This is not the thread of its event loop.
        """
        if self._driver is None:
            raise NodeNotRunningError(_STOPPED if self._was_started else _NEVER_STARTED)
        if self._driver.generation != process.generation:
            self.check_process()
        if self._thread != threading.get_ident():
            self._check_thread()
        return self._driver

    @property
    def event_loop(self) -> tuple[asyncio.AbstractEventLoop, int] | None:
        """The event loop of the run and the id of its thread; callable in any thread.

        None if the node is not running, or runs without an event loop.
        """
        driver, thread = self._driver, self._thread
        if driver is None or driver.inherited or driver.loop is None or driver.loop.is_closed():
            return None
        return driver.loop, thread

    def check_running(self) -> None:
        """Raise unless the node runs and this is its thread, as `driver` does."""
        _ = self.driver

    def check_process(self) -> None:
        """Raise in a forked child of the process that runs the node.

        Raises:
            NodeNotRunningError: The node runs in the parent of this process.
        """
        if self._driver is not None and self._driver.inherited:
            raise NodeNotRunningError(
                "this process was forked from the one that runs the node; start a node of its own"
            )

    def observe(self, observer: Observer) -> None:
        """Add an observer of presence changes and messages, in this and in every later run."""
        self._observers.append(observer)

    def stop_observing(self, observer: Observer) -> None:
        """Remove an observer. Idempotent."""
        if observer in self._observers:
            self._observers.remove(observer)

    def use_driver(self, make: MakeDriver | None) -> None:
        """Replace the driver of later runs, as `adsum.testing` does for a simulated network.

        Args:
            make: Makes the driver of a run from the settings of the node and the list of its
                observers, which the driver reads at each event; None restores sockets and carrier.
        """
        self._make_driver = _make_driver if make is None else make

    def attach(self, thread: int | None = None) -> Driver:
        """Begin a run for a caller that opens and ends its driver: `start` without waiting.

        Call `detach` before the end of the driver.

        Args:
            thread: The id of the thread in which the node may be used; by default the calling one.

        Returns:
            The driver, not opened yet.

        Raises:
            UsageError: The node runs already.
        """
        if self.running:
            raise UsageError("the node runs already; stop it first")
        self._was_started = True
        return self._begin(threading.get_ident() if thread is None else thread)

    def _begin(self, thread: int) -> Driver:
        driver = self._make_driver(self.settings, self._observers)
        self._driver, self._thread = driver, thread
        return driver

    def detach(self) -> None:
        """End the use of the driver that `attach` returned: the node no longer runs."""
        self._driver = None

    def _check_thread(self) -> None:
        if self._thread != threading.get_ident():
            raise WrongThreadError(
                "a node must be used in the thread of its event loop, not in "
                f"{quoted(threading.current_thread().name)}. In a web framework write the handler "
                "as `async def`. In other synchronous code use an `adsum.Portal`, or keep "
                "`loop = asyncio.get_running_loop()` where the node is started, and use it here: "
                "`asyncio.run_coroutine_threadsafe(presence.fetch(topic), loop).result()` awaits a "
                "call, `loop.call_soon_threadsafe(presence.untrack_all, owner)` makes one without "
                "waiting"
            )


def _make_driver(settings: Settings, observers: list[Observer]) -> Driver:
    """Make the driver of a run: on sockets alone, or with a carrier."""
    make = SocketDriver if settings.carrier is None else CarrierDriver
    return make(settings, observers)


def _free(driver: Driver, task: "asyncio.Task[None]") -> None:
    """Abandon a run if closing it failed or was cancelled, possibly before closing began."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        logger.error("%s: closing failed", driver.replica, exc_info=error)
    if error is not None or task.cancelled():
        driver.abandon()


def _is_closed(loop: asyncio.AbstractEventLoop | None) -> bool:
    return loop is not None and loop.is_closed()
