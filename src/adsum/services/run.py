"""`Run`: the state of `Services` in one run of the node, and `CurrentRun`, which finds it."""

from collections.abc import Sequence

from adsum.driver.driver import Driver
from adsum.driver.observer import Observer
from adsum.node import Node
from adsum.replication.entry import Transition

from .instanceswatch import InstancesFeeds
from .registration import Registrations
from .resolver import Resolver


class Run:
    """The registrations, directories and watches of one run of a node.

    Args:
        node: The node.
        driver: The run.
        rest: Seconds of the first rest of an instance.
    """

    def __init__(self, node: Node, driver: Driver, rest: float) -> None:
        self.driver = driver
        self.registrations = Registrations(node)
        self.resolver = Resolver(driver, rest)
        self.feeds = InstancesFeeds(driver, self.resolver.instances)

    def changed(self, topic: str, transitions: Sequence[Transition]) -> None:
        """Apply the changes of a topic, and wake its watches."""
        self.resolver.changed(topic, transitions)
        self.feeds.push(topic)

    def end(self) -> None:
        """End all registrations and watches: the node has stopped."""
        self.registrations.end()
        self.feeds.close()


class CurrentRun(Observer):
    """Returns the state of the current run, made at its first use; ends it with the node.

    Args:
        node: The node.
        rest: Seconds of the first rest of an instance.
    """

    def __init__(self, node: Node, rest: float) -> None:
        self._node = node
        self._rest = rest
        self._run: Run | None = None

    def __call__(self) -> Run:
        """The state of the current run.

        Raises:
            NodeNotRunningError: The node is not running.
        """
        driver = self._node.driver
        if self._run is None or self._run.driver is not driver:
            self._run = Run(self._node, driver, self._rest)
        return self._run

    def changed(self, topic: str, transitions: list[Transition]) -> None:
        """See `Observer`."""
        if self._run is not None:
            self._run.changed(topic, transitions)

    def stopping(self) -> None:
        """See `Observer`: requests go elsewhere before the server closes."""
        if self._run is not None:
            self._run.registrations.hide()

    def closed(self) -> None:
        """See `Observer`."""
        run, self._run = self._run, None
        if run is not None:
            run.end()

    def forked(self) -> None:
        """See `Observer`."""
        self._run = None
