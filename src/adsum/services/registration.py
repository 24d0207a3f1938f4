"""`Registration`: one address that this node offers, listed while it is healthy.

Invariant: there is an entry exactly while the registration has not ended, its last check has
succeeded, and the node is not about to stop. `_apply` establishes this after each change, and it
alone changes the entry.
"""

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from adsum.driver.driver import Driver
from adsum.errors import AlreadyTrackedError, NodeNotRunningError, NotTrackedError
from adsum.node import Node
from adsum.quoting import quoted
from adsum.replication.entry import META, Entry
from adsum.values.jsontext import load

from .healthcheck import Check, HealthCheck
from .instance import (
    Instance,
    checked_tags,
    checked_weight,
    decode_instance,
    encode_instance,
    topic_of,
)


class Registration:
    """A handle to one registered address, returned by `Services.register`.

    As a context manager, plain or asynchronous, it withdraws the address at the end of the block.
    The asynchronous one also waits for the first result of the check, if there is one. Dropping the
    handle does not end the registration.
    """

    def __init__(
        self,
        node: Node,
        name: str,
        address: str,
        text: str,
        ended: Callable[["Registration"], None],
    ) -> None:
        #: The name of the service.
        self.name = name
        #: The registered address.
        self.address = address
        self._node = node
        self._driver: Driver = node.driver
        # The current text of the presence, also while it is not listed.
        self._text = text
        self._ended = ended
        self._active = True
        # The last result of the check.
        self._healthy = True
        self._entry: Entry | None = None
        self._check: HealthCheck | None = None

    @property
    def active(self) -> bool:
        """Whether the registration has not ended."""
        return self._active and not self._driver.inherited

    @property
    def instance(self) -> Instance | None:
        """The instance as all nodes list it; None while it is withdrawn, and after the end."""
        if not self.active or self._entry is None:
            return None
        return decode_instance(self.name, self._entry)

    def update(
        self,
        *,
        tags: Iterable[str] | None = None,
        weight: float | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        """Replace tags, weight or meta in place; None leaves them as they are.

        Weight 0 drains the instance: it is still listed, and gets no new requests.

        Raises:
            ConfigurationError: The tags or the weight are wrong.
            NotTrackedError: The registration has ended.
            TypeError: The meta is not a JSON object; the message names the path.
            ValueError: The meta is not finite, too deep or too large.
        """
        if not self._active:
            raise NotTrackedError(f"{quoted(self.address)} as {quoted(self.name)} has ended")
        self._node.check_running()
        now = load(self._text)
        self._text = encode_instance(
            tuple(now["tags"]) if tags is None else checked_tags(tags),
            now["weight"] if weight is None else checked_weight(weight),
            now["meta"] if meta is None else meta,
        )
        self._apply()

    def withdraw(self) -> None:
        """End the registration: no node lists the address. Idempotent, also after its node."""
        if not self.active:
            return
        try:
            self._node.check_running()
        except NodeNotRunningError:
            return
        self._active = False
        self._apply()
        self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.withdraw()

    async def __aenter__(self) -> Self:
        try:
            if self._check is not None:
                await self._check.checked()
        except BaseException:
            self.withdraw()
            raise
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.withdraw()

    def __repr__(self) -> str:
        state = "ended" if not self.active else "listed" if self._entry else "withdrawn"
        return f"<Registration of {quoted(self.address)} as {quoted(self.name)}, {state}>"

    # Called by the registrations of the node.

    def begin(self, check: Check | None, every: float) -> None:
        """List the address, at once or after the first success of the check."""
        if check is not None:
            self._healthy = False
            label = f"{quoted(self.address)} as {quoted(self.name)}"
            self._check = HealthCheck(check, every, label, self._checked)
        self._apply()

    def hide(self) -> None:
        """Withdraw the address: the node is about to stop."""
        if self.active:
            self._apply()

    def end(self) -> None:
        """End with the node; its entries end with it."""
        self._active = False
        self._entry = None
        self._finish()

    def _checked(self, healthy: bool) -> None:
        if self.active and self._node.running:
            self._healthy = healthy
            self._apply()

    def _apply(self) -> None:
        """Make the entry what it must be, see the invariant."""
        driver, entry = self._driver, self._entry
        if not (self._active and self._healthy) or driver.stopping:
            if entry is not None:
                driver.untrack(entry)
                self._entry = None
        elif entry is None:
            self._entry = driver.track(topic_of(self.name), self.address, self._text)
        elif entry[META] != self._text:
            self._entry = driver.update(entry, self._text)
        driver.notify_observers()  # so that a resolve on this node has the change at once

    def _finish(self) -> None:
        if self._check is not None:
            self._check.stop()
        self._ended(self)


class Registrations:
    """The registrations of one run of a node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._held: dict[tuple[str, str], Registration] = {}

    def add(
        self, name: str, address: str, text: str, check: Check | None, every: float
    ) -> Registration:
        """Register an address.

        Raises:
            AlreadyTrackedError: It is registered as this service already.
        """
        if (name, address) in self._held:
            raise AlreadyTrackedError(
                f"{quoted(address)} is registered as {quoted(name)} already by this node; call "
                f"update() on the handle that register() returned"
            )
        made = Registration(self._node, name, address, text, self._forget)
        self._held[name, address] = made
        try:
            made.begin(check, every)
        except BaseException:
            self._forget(made)
            raise
        return made

    def hide(self) -> None:
        """Withdraw all of them: the node is about to stop."""
        for one in list(self._held.values()):
            one.hide()

    def end(self) -> None:
        """End all of them: the node has stopped."""
        for one in list(self._held.values()):
            one.end()

    def _forget(self, one: Registration) -> None:
        if self._held.get((one.name, one.address)) is one:
            del self._held[one.name, one.address]
