"""A client of the bus that renews its connection for ever, over sessions of one engine.

A session is one connection to one server. The reconnector opens the first session, and another one
after each loss: at once at another server of the setting, after 50 to 100 ms at the same one, then
with doubled waits of at most 2 s. Nothing of an old session survives: its queue is dropped, because
messages that arrive long after newer state of the links would only be discarded.

Subscriptions are kept here. A session counts as connected after the server has all of them, also
those added while it was opened.
"""

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from adsum.bus.busclient import BusHandler
from adsum.bus.bussession import BusSession
from adsum.bus.limits import LEAST_PAYLOAD
from adsum.bus.maskedurl import mask, scrubbed, split_urls
from adsum.errors import CarrierError
from adsum.quoting import quoted
from adsum.sparselog import SparseLogger
from adsum.tasks import cancel_task, resolve, start_task

logger = logging.getLogger("adsum.transport")

#: Seconds for one attempt at one server, from its name to the confirmed subscriptions.
CONNECT_TIMEOUT = 5.0
#: Seconds for the first connection, over all servers.
FIRST_TIMEOUT = 15.0
#: Seconds before the second attempt at a server: from, to. Doubled each round, up to `MAX_WAIT`.
FIRST_WAIT = (0.05, 0.1)
#: Seconds between two rounds of attempts at most.
MAX_WAIT = 2.0


class BusReconnector(ABC):
    """The part of `BusClient` that all engines share.

    Args:
        url: The checked setting.
        handler: Receives the events.
        name: The name of this node, for the engine's monitoring.
        rng: Chooses the first server and the waits.
    """

    #: The first connection goes to a random server, so that servers of a cluster share the clients.
    spreads = False

    def __init__(
        self, url: str, handler: BusHandler, name: str, rng: random.Random | None = None
    ) -> None:
        self.name = name
        self._url = url
        self._servers = split_urls(url)
        self._handler = handler
        self._rng = rng or random.Random()  # noqa: S311  # waits are no secrets
        # The keys are the subjects, in the order of their subscriptions.
        self._subjects: dict[str, None] = {}
        # The subject of this client alone.
        self._own: str | None = None
        self._session: BusSession | None = None
        # The session that is being opened, for `abandon`.
        self._opening: BusSession | None = None
        self._task: asyncio.Task[None] | None = None
        self._at = 0
        self._closed = False
        self._dropped_total = 0
        self._logs = SparseLogger(logger)

    @abstractmethod
    def _make_session(self, server: str, own: str | None) -> BusSession:
        """Make a session for one server, which connects in `BusSession.open`.

        Args:
            server: The URL of the server.
            own: The subject of this client alone; None if it has none. The session publishes an
                empty message on it, which nobody receives: the server refuses a user that may not
                publish.
        """

    @abstractmethod
    def _failure(self, error: Exception) -> tuple[str, str]:
        """The reason and the remedy for an error of `BusSession.open`."""

    @property
    def _unanswered_remedy(self) -> str:
        """The remedy for a server that accepts a connection and does not answer."""
        return REACH

    @property
    def connected(self) -> bool:
        """Whether a server is connected and has all subscriptions."""
        return self._session is not None

    @property
    def server(self) -> str:
        """The masked URL of the server that is connected, or was tried last."""
        return mask(self._servers[self._at])

    @property
    def dropped_total(self) -> int:
        """Messages dropped while disconnected, beyond a bound, or refused by the engine."""
        return self._dropped_total

    @property
    def backlog(self) -> int:
        """Bytes accepted by `publish` and not yet passed to the socket of the engine."""
        return self._session.backlog if self._session is not None else 0

    async def connect(self, subjects: Sequence[str]) -> None:
        """Connect and subscribe; see `BusClient.connect`."""
        self._subjects.update(dict.fromkeys(subjects))
        self._own = subjects[-1] if subjects else None
        if self.spreads:
            self._at = self._rng.randrange(len(self._servers))
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = start_task(self._run(first))
        try:
            await first
        except BaseException:
            self.abandon()
            raise

    def publish(self, subject: str, data: bytes, probe: object | None = None) -> None:
        """Send a message; see `BusClient.publish`."""
        if self._session is None or not self._session.publish(subject, data, probe):
            self._dropped_total += 1

    def subscribe(self, subject: str) -> None:
        """Subscribe to one more subject; see `BusClient.subscribe`."""
        if subject not in self._subjects:
            self._subjects[subject] = None
            if self._session is not None:
                self._session.subscribe(subject)

    def unsubscribe(self, subject: str) -> None:
        """End a subscription; see `BusClient.unsubscribe`."""
        if subject in self._subjects:
            del self._subjects[subject]
            if self._session is not None:
                self._session.unsubscribe(subject)

    async def close(self) -> None:
        """Send the backlog within a bounded time, then disconnect; idempotent."""
        self._closed = True
        cancel_task(self._task)
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        self.abandon()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=CONNECT_TIMEOUT)

    def abandon(self) -> None:
        """Disconnect at once; the loop may be closed."""
        self._closed = True
        cancel_task(self._task)
        for session in (self._session, self._opening):
            if session is not None:
                session.abandon()
        self._session = self._opening = None

    # Called by sessions.

    def received(self, data: bytes) -> None:
        """Pass a message on to the handler."""
        if self._session is not None:
            self._notify(self._handler.bus_received, data)

    def refused(self, probe: object) -> None:
        """Pass a refusal on to the handler."""
        if self._session is not None:
            self._notify(self._handler.bus_refused, probe)

    def dropped(self, reason: str) -> None:
        """Count a message or a subscription that the library or the engine refused, and log it."""
        self._dropped_total += 1
        text = scrubbed(reason, self._servers[self._at])
        self._logs.warning("carrier %s refuses a message or a subscription: %s", self.server, text)

    # The task.

    async def _run(self, first: "asyncio.Future[None]") -> None:
        try:
            session = await self._open_first()
        except Exception as error:
            if not first.done():
                first.set_exception(error)
            return
        while True:
            self._session, self._opening = session, None
            self._notify(self._handler.bus_connected)
            resolve(first)
            # The end of this task, in `close`, is not the end of the session.
            reason = scrubbed(await asyncio.shield(session.ended), self._servers[self._at])
            self._session = None
            self._dropped_total += session.queued
            session.abandon()
            self._notify(self._handler.bus_disconnected, reason)
            del session  # frees its queue
            session = await self._open_again()

    async def _open_first(self) -> BusSession:
        """Try each server once.

        Raises:
            CarrierError: All attempts failed, or took longer than `FIRST_TIMEOUT`.
        """
        failures: list[str] = []
        try:
            async with asyncio.timeout(FIRST_TIMEOUT):
                for _ in self._servers:
                    try:
                        return await self._open(self._at)
                    except Exception as error:
                        failures.append(self._explained(error))
                    self._at = (self._at + 1) % len(self._servers)
        except TimeoutError:
            failures.append(f"{self.server}: no connection within {FIRST_TIMEOUT:g} s")
        raise CarrierError("; ".join(failures))

    async def _open_again(self) -> BusSession:
        """Try the servers until one accepts.

        The first refusal of the credentials or of a subject is logged: unlike the absence of a
        server it ends only after somebody has acted, and the loss that preceded it hides it.
        """
        refused = False
        for at, wait in self._attempts():
            if wait:
                await asyncio.sleep(wait)
            try:
                return await self._open(at)
            except Exception as error:
                refused = self._log_attempt(error, refused)
        raise AssertionError  # attempts do not end

    def _log_attempt(self, error: Exception, refused: bool) -> bool:
        """Log a failed attempt; returns whether one of this outage was refused by now."""
        if refused or self._failure(error)[1] not in REFUSALS:
            logger.debug("%s", self._explained(error))
            return refused
        self._logs.warning("%s; further attempts follow", self._explained(error))
        return True

    def _attempts(self) -> Iterator[tuple[int, float]]:
        """Servers to try, each with the seconds to wait before: others at once, the lost one last.

        The wait precedes the last server of the first round, and the first one of later rounds.
        """
        count, lost = len(self._servers), self._at
        wait = self._rng.uniform(*FIRST_WAIT)
        for other in range(1, count):
            yield (lost + other) % count, 0.0
        yield lost, wait
        while True:
            wait = min(2 * wait, MAX_WAIT)
            for other in range(1, count + 1):
                yield (lost + other) % count, 0.0 if other > 1 else wait

    async def _open(self, at: int) -> BusSession:
        self._at = at
        session = self._opening = self._make_session(self._servers[at], self._own)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await self._subscribe_all(session)
            if self._closed:  # `wait_for` of Python 3.11 and nats-py may swallow a cancellation
                raise asyncio.CancelledError
            session.make_private()
        except BaseException:
            session.abandon()
            self._opening = None
            raise
        return session

    async def _subscribe_all(self, session: BusSession) -> None:
        """Open a session with all subscriptions, also with those added or removed meanwhile."""
        subscribed = dict.fromkeys(self._subjects)
        await session.open(list(subscribed))
        while more := [subject for subject in self._subjects if subject not in subscribed]:
            await session.subscribe_now(more)
            subscribed.update(dict.fromkeys(more))
        for subject in subscribed:
            if subject not in self._subjects:
                session.unsubscribe(subject)

    def _explained(self, error: Exception) -> str:
        if isinstance(error, TimeoutError) and not str(error):
            reason, remedy = f"no answer within {CONNECT_TIMEOUT:g} s", self._unanswered_remedy
        else:
            reason, remedy = self._failure(error)
        url = self._servers[self._at]
        return f"carrier='{mask(url)}': {scrubbed(reason, url)}; {remedy}"

    def _notify(self, function: Callable[..., None], *args: Any) -> None:
        """Call the handler. An error of it would end the connection, or stop it without notice."""
        if self._closed:
            return
        try:
            function(*args)
        except Exception as error:
            self._logs.crashed(
                "handler of carrier %s failed in %s",
                self.server,
                quoted(getattr(function, "__name__", "")),
                error=error,
            )


#: Remedies in errors.
REACH = "check that the server runs and that this host may connect to it"
CREDENTIALS = "check the user, the password or the token in the URL"
PERMISSION = "allow this user to subscribe and publish on the subjects of the cluster"
PAYLOAD = f"set max_payload of the server to {LEAST_PAYLOAD} or more"
#: Remedies for the refusals of a server that runs.
REFUSALS = (CREDENTIALS, PERMISSION, PAYLOAD)
