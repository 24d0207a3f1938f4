"""`Services`: register addresses and resolve services, from this node's memory."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

from adsum.arguments import (
    async_function,
    flag,
    instance,
    refuse,
    seconds_above_zero,
    seconds_from_zero,
    whole,
)
from adsum.driver.observer import Observer
from adsum.errors import NodeNotRunningError
from adsum.node import Node

from .attempts import Attempts, Errors, checked_errors
from .healthcheck import Check
from .instance import (
    Instance,
    checked_address,
    checked_instance,
    checked_service,
    checked_tag,
    checked_tags,
    checked_weight,
    encode_instance,
    ids_of,
    shown,
)
from .instanceswatch import InstancesWatch
from .pick import checked_strategy
from .registration import Registration
from .run import CurrentRun
from .slot import Slot
from .use import Use

T = TypeVar("T")

#: Seconds that the first rest of a failed instance may last, at most.
LONGEST_REST = 3600.0
#: Attempts of one request, at most.
MOST_ATTEMPTS = 100


class Services:
    """Registers addresses of this node, and resolves services of the whole cluster.

    Reads (`instances`, `resolve`) answer at once from this node's memory. A registration is visible
    on its own node when the call returns, and on the others some milliseconds later. It ends with
    its node: after a crash the others skip its instances within milliseconds, and no longer list
    them after `link_grace`, 0.25 s by default.

    An instance that failed is skipped by this resolver alone. Only the node that registered an
    instance withdraws it.

    Make one for each node, at import if you like. Use it while the node runs, in the thread of its
    event loop; from other threads through `Portal.call`.

    Args:
        node: The node; addresses are registered on it, and those of its cluster are resolved.
        pick: The strategy of `resolve`. ``least_used`` picks the instance with the fewest requests
            in use at this resolver, and counts those of `use` and `attempts`; ``round_robin`` picks
            each in turn; ``weight`` picks each in proportion to its weight.
        rest: Seconds, from 0 to 3600, for which an instance is skipped after a failure. The time
            doubles with each further one until a success, up to 60 s. 0: failures have no effect.

    Raises:
        ConfigurationError: An argument is wrong.

    Example:
        >>> import asyncio, adsum
        >>> async def main():
        ...     node = adsum.Node(siblings=False)
        ...     services = adsum.Services(node)
        ...     async with node, services.register("users", "http://10.0.0.5:8000"):
        ...         with services.use("users") as instance:
        ...             return instance.address
        >>> asyncio.run(main())
        'http://10.0.0.5:8000'
    """

    def __init__(self, node: Node, *, pick: str = "least_used", rest: float = 5.0) -> None:
        self._node = instance("node", node, Node, "an adsum.Node")
        self._strategy = checked_strategy(pick)
        seconds_from_zero("rest", rest)
        if rest > LONGEST_REST:
            refuse("rest", rest, f"from 0 to {LONGEST_REST:g} seconds")
        # Returns the state of the current run of the node.
        self._current = CurrentRun(node, rest)
        #: Its observer of the node, for `Node.stop_observing`.
        self.observer: Observer = self._current
        node.observe(self.observer)

    @property
    def node(self) -> Node:
        """The node given to the constructor."""
        return self._node

    # The owner's side.

    def register(
        self,
        name: str,
        address: str,
        *,
        tags: Iterable[str] = (),
        weight: float = 1.0,
        meta: Mapping[str, Any] | None = None,
        check: Check | None = None,
        every: float = 1.0,
    ) -> Registration:
        """Register an address: list it as an instance of a service until the registration ends.

        It ends with `Registration.withdraw`, the block of a `with` or `async with` statement, or
        the node; not with the calling task. It is withdrawn as soon as the node is about to stop,
        so requests go elsewhere before the server closes; it never lingers.

        Args:
            name: The service: 1 to 100 lower-case letters, digits, dots, hyphens and underscores.
            address: 1 to 300 characters that the application's clients understand, such as
                ``http://10.0.0.5:8000``, ``unix:/run/users.sock`` or ``10.0.0.5:8000``.
            tags: At most 16 texts of 1 to 64 characters, to resolve a part of the instances.
            weight: 0.001 to 1000, the share of requests under the strategy ``weight``; or 0: the
                instance is listed, and gets no new requests under any strategy.
            meta: A JSON object, at most 32 KiB as text.
            check: An async function without arguments, called every some seconds. If it raises,
                returns False or takes longer than `every`, the address is withdrawn until it
                succeeds again. It is listed after its first success.
            every: Seconds above 0 between two checks, and for one check at most.

        Raises:
            AlreadyTrackedError: This node has registered the address as this service already.
            ConfigurationError: The name, the tags, the weight, the check or `every` are wrong.
            NodeNotRunningError: The node is not running.
            TypeError: The name or the address is not a string, or the meta is not a JSON object.
            ValueError: The address or the meta is too long, too deep or not finite.
        """
        run = self._current()
        name, address = checked_service(name), checked_address(address)
        text = encode_instance(
            checked_tags(tags), checked_weight(weight), {} if meta is None else meta
        )
        if check is not None:
            async_function("check", check)
        return run.registrations.add(name, address, text, check, seconds_above_zero("every", every))

    # The reader's side.

    def instances(self, name: str, *, tag: str | None = None) -> tuple[Instance, ...]:
        """All listed instances of a service, in the same order on every node.

        Suspects, resting and drained ones are among them. While nothing changes, calls without a
        tag cost the same at any number.

        Args:
            name: The service.
            tag: Only instances with this tag.

        Raises:
            ConfigurationError: The name cannot be that of a service.
            NodeNotRunningError: The node is not running.
        """
        found = self._current().resolver.instances(name)
        if tag is None:
            return found
        checked_tag(tag)
        return tuple(one for one in found if tag in one.tags)

    def resolve(
        self,
        name: str,
        *,
        tag: str | None = None,
        exclude: Iterable[Instance] = (),
        pick: str | None = None,
    ) -> Instance:
        """Pick one instance for one request.

        Skips instances with weight 0. Skips those whose node is suspect or not up, and those that
        rest after a failure; but if there are no others, it picks among these, because a request to
        a doubtful instance is better than none.

        Args:
            name: The service.
            tag: Only instances with this tag.
            exclude: Instances that are not picked, such as those that were tried.
            pick: The strategy for this call, by default that of the constructor.

        Raises:
            ConfigurationError: The name cannot be that of a service, or the strategy is unknown.
            NoInstanceError: No instance is left; the message counts the reasons.
            NodeNotRunningError: The node is not running.
        """
        return self._pick(name, tag, pick, ids_of(exclude)).instance

    def use(
        self,
        name: str,
        *,
        tag: str | None = None,
        exclude: Iterable[Instance] = (),
        pick: str | None = None,
    ) -> Use:
        """Pick an instance as `resolve` does, and count its use: ``with services.use("users")``.

        An `OSError` in the block, such as `ConnectionError` and `TimeoutError`, is reported as a
        failure, and is not suppressed. The end without an error is reported as a success.
        """
        slot = self._pick(name, tag, pick, ids_of(exclude))
        return Use(slot, self)

    def attempts(
        self,
        name: str,
        *,
        tag: str | None = None,
        attempts: int = 3,
        idempotent: bool = False,
        unsent: Errors = (),
        failures: Errors = (),
        pick: str | None = None,
    ) -> Attempts:
        """The attempts of one request, each on another instance: for clients of any protocol.

        A refused connection is repeated on another instance. A request that was sent is repeated
        only if it is idempotent.

        Args:
            name: The service.
            tag: Only instances with this tag.
            attempts: Attempts at most, from 1 to 100.
            idempotent: Whether the request may be executed twice.
            unsent: Types of errors after which nothing was sent, besides `ConnectionRefusedError`.
            failures: Types of errors of an instance, besides `OSError`.
            pick: The strategy, by default that of the constructor.

        Returns:
            An iterator of `Attempt`. Its first item raises `NoInstanceError` if there is none.

        Raises:
            ConfigurationError: An argument is wrong.

        Example:
            >>> import asyncio, adsum
            >>> async def main():
            ...     node = adsum.Node(siblings=False)
            ...     services = adsum.Services(node)
            ...     async with node:
            ...         services.register("users", "10.0.0.5:1")
            ...         services.register("users", "10.0.0.6:1")
            ...         for attempt in services.attempts("users"):
            ...             with attempt as instance:
            ...                 if instance.address == "10.0.0.5:1":
            ...                     raise ConnectionRefusedError
            ...                 return instance.address, attempt.number
            >>> asyncio.run(main())
            ('10.0.0.6:1', 2)
        """
        checked_service(name)
        whole("attempts", attempts, 1)
        if attempts > MOST_ATTEMPTS:
            refuse("attempts", attempts, f"from 1 to {MOST_ATTEMPTS}")
        if tag is not None:
            checked_tag(tag)
        if pick is not None:
            checked_strategy(pick)
        return Attempts(
            partial(self._pick, name, tag, pick),
            self,
            most=attempts,
            idempotent=flag("idempotent", idempotent),
            unsent=checked_errors("unsent", unsent),
            failures=checked_errors("failures", failures),
        )

    async def call(
        self,
        name: str,
        function: Callable[[Instance], Awaitable[T]],
        *,
        tag: str | None = None,
        attempts: int = 3,
        idempotent: bool = False,
        unsent: Errors = (),
        failures: Errors = (),
        pick: str | None = None,
    ) -> T:
        """Call an async function with an instance, and again with another one as `attempts` does.

        Args:
            name: The service.
            function: Makes one attempt at the instance; its result is that of the call.
            tag: As of `attempts`, like all others.
            attempts: Attempts at most.
            idempotent: Whether the request may be executed twice.
            unsent: Types of errors after which nothing was sent.
            failures: Types of errors of an instance.
            pick: The strategy.

        Raises:
            Exception: The error of the last attempt.
            NoInstanceError: There is no instance.
        """
        tries = self.attempts(
            name,
            tag=tag,
            attempts=attempts,
            idempotent=idempotent,
            unsent=unsent,
            failures=failures,
            pick=pick,
        )
        while True:  # until an attempt returns, or raises an error that is not repeated
            with next(tries) as instance:
                return await function(instance)

    def report_failure(self, instance: Instance) -> None:
        """Skip an instance at this resolver for `rest` seconds, longer after each further failure.

        Failures while it rests do not lengthen the rest. Does nothing if it has departed.
        """
        self._current().resolver.fail(checked_instance(instance))

    def report_success(self, instance: Instance) -> None:
        """Forget the failures of an instance: it does not rest any longer."""
        self._current().resolver.succeed(checked_instance(instance))

    async def wait_for(
        self,
        name: str,
        count: int = 1,
        *,
        tag: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # its error names the counts
    ) -> tuple[Instance, ...]:
        """Wait until a service has so many instances that accept requests.

        Args:
            name: The service.
            count: The number of instances, from 1; those with weight 0 do not count.
            tag: Only instances with this tag.
            timeout: Seconds to wait at most, from 0; None waits without a bound.

        Returns:
            The instances, at least `count`.

        Raises:
            ConfigurationError: An argument is wrong.
            NodeNotRunningError: The node is not running, or has stopped meanwhile.
            TimeoutError: There are too few; the message has both numbers.
        """
        whole("count", count, 1)
        if timeout is not None and math.isinf(seconds_from_zero("timeout", timeout)):
            timeout = None
        found: tuple[Instance, ...] = ()
        try:
            async with asyncio.timeout(timeout):
                with self.watch(name) as watch:
                    async for _ in watch:
                        found = tuple(one for one in self.instances(name, tag=tag) if one.weight)
                        if len(found) >= count:
                            return found
        except TimeoutError:
            text = f"{len(found)} of {count} instances of {shown(name, tag)} after {timeout:g} s"
            raise TimeoutError(text) from None
        raise NodeNotRunningError("the node was stopped while waiting for instances")

    def watch(self, name: str) -> InstancesWatch:
        """Watch a service: an asynchronous iterator of arrived, departed and changed instances.

        The watch begins at this call. The first diff comes at once, with all listed instances as
        arrived. Each later diff has the changes since the one before; for a slow reader several are
        merged, so no queue grows.

        Raises:
            ConfigurationError: The name cannot be that of a service.
            NodeNotRunningError: The node is not running.

        Example:
            >>> import asyncio, adsum
            >>> async def main():
            ...     node = adsum.Node(siblings=False)
            ...     services = adsum.Services(node)
            ...     async with node, services.register("users", "http://10.0.0.5:8000"):
            ...         async for diff in services.watch("users"):
            ...             return [instance.address for instance in diff.arrived]
            >>> asyncio.run(main())
            ['http://10.0.0.5:8000']
        """
        return self._current().feeds.watch(checked_service(name))

    def __repr__(self) -> str:
        return f"<Services on {self._node!r}>"

    def _pick(self, name: str, tag: str | None, pick: str | None, excluded: frozenset[str]) -> Slot:
        strategy = self._strategy if pick is None else checked_strategy(pick)
        if tag is not None:
            checked_tag(tag)
        return self._current().resolver.pick(name, tag, strategy, excluded)
