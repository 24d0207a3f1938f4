"""Test cluster for applications: real `adsum.Node` objects on a simulated network.

An application uses them as in production, `Presence` and `PubSub` included. Only the layer below is
replaced: a `Simulation` instead of sockets and a clock. So the test decides how much time passes
and which faults happen. Nothing sleeps, and the same seed gives the same run.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import adsum
from adsum.arguments import instance, seconds_from_zero, whole
from adsum.config import Settings
from adsum.driver.driver import Driver
from adsum.driver.observer import Observer
from adsum.errors import UsageError
from adsum.replication.entry import Entry

from .simulator.networknode import SimulatedNetworkNode
from .simulator.simulatednode import SimulatedNode, running_loop
from .simulator.simulation import Simulation, settling

T = TypeVar("T")


class ClusterMember:
    """One node of a `Cluster`, with a `Presence` and a `PubSub`.

    Attributes:
        name: Its name, which is its address too.
        node: The node itself.
        presence: A `Presence` of that node.
        pubsub: A `PubSub` of that node.
    """

    def __init__(self, name: str, node: adsum.Node) -> None:
        self.name = name
        self.node = node
        self.presence = adsum.Presence(node)
        self.pubsub = adsum.PubSub(node)

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def give_back(self) -> None:
        """Let the node run on sockets again, without `presence` and `pubsub` as observers."""
        self.node.use_driver(None)
        self.node.stop_observing(self.presence.observer)
        self.node.stop_observing(self.pubsub.observer)


class ApplicationRun(SimulatedNetworkNode):
    """A run of an application's node: its changes are sent at the next tick, as on sockets."""

    def untrack(self, entry: Entry) -> None:
        """See `Driver`."""
        Driver.untrack(self, entry)


class Cluster:
    """A cluster for a test. Get it from the fixture ``cluster``, as ``cluster(3)``.

    Time stands still until `settle` or `run`. A change is visible on its own node at once, and on
    the others when time has passed. Methods accept a member as the `ClusterMember`, its node, its
    name or its number. At each step the laws of `adsum.testing.simulator.laws` are checked.

    Args:
        nodes: The number of nodes to start, named ``n1``, ``n2`` and so on.
        seed: All randomness comes from it.
        settings: Settings of `adsum.Node`, for all of the nodes; not `name`, and none about
            addresses.

    Methods that take a member raise LookupError if the cluster has no such member, and UsageError
    if it must run and does not. Each of them takes effect before it returns.

    Raises:
        ConfigurationError: A setting is wrong.

    Example:
        >>> from adsum.testing import Cluster
        >>> cluster = Cluster(3)
        >>> ann = cluster[0].presence.track("room:1", "ann", owner=None)
        >>> cluster.settle()
        >>> cluster.assert_online("room:1", "ann")
        >>> cluster.kill(0)
        >>> cluster.settle()
        >>> cluster.assert_online("room:1")
        >>> cluster.close()
    """

    def __init__(self, nodes: int, *, seed: int = 0, **settings: Any) -> None:
        whole("nodes", nodes, 0)
        self.simulation = Simulation(0, seed=seed)
        self._members: list[ClusterMember] = []
        # The last run of each member.
        self._runs: dict[ClusterMember, SimulatedNode] = {}
        # The id of the thread of each member that this cluster started.
        self._threads: dict[ClusterMember, int] = {}
        # Everything done to the cluster so far, for the message of `assert_online`.
        self._story: list[str] = []
        for index in range(nodes):
            member = self.adopt(adsum.Node(name=f"n{index + 1}", siblings=False, **settings))
            self._start(member)

    # Members.

    def __iter__(self) -> Iterator[ClusterMember]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, which: "Which") -> ClusterMember:
        """A member by its number, its name or its node.

        Raises:
            LookupError: There is no such member; the message lists the members.
        """
        for number, member in enumerate(self._members):
            if which is member or which is member.node or which in (number, member.name):
                return member
        raise LookupError(f"{which!r} is no member of this cluster; there are {self._members}")

    def adopt(self, node: adsum.Node) -> ClusterMember:
        """Make an application's own node a member: it will start on the simulated network.

        Args:
            node: It may have any settings; those about addresses have no effect.

        Returns:
            The new member.

        Raises:
            UsageError: The node runs already, or there is a member of its name.
        """
        instance("node", node, adsum.Node, "an adsum.Node")
        if node.running:
            raise UsageError("node: it runs already; adopt it before its application starts")
        name = node.settings.name or f"n{len(self._members) + 1}"
        if any(member.name == name for member in self._members):
            raise UsageError(f"node: there is a member named {name!r} already; name it otherwise")
        member = ClusterMember(name, node)
        self._members.append(member)

        def create(settings: Settings, observers: list[Observer]) -> Driver:
            run = self._runs[member] = self.simulation.create(
                member.name,
                timing=settings.timing,
                linger=settings.linger,
                observers=observers,
                kind=ApplicationRun,
            )
            return run

        node.use_driver(create)
        return member

    # Time.

    def run(self, seconds: float) -> None:
        """Let seconds of virtual time pass, for the network and the nodes but not for the test."""
        seconds_from_zero("seconds", seconds)
        self._do(f"run({seconds:g})", self.simulation.run, seconds)

    def settle(self) -> None:
        """Let enough virtual time pass for every change to take effect on every node.

        First the time after which a silent node is hidden, then the time within which all nodes
        that reach one another agree: 15 seconds by default. Linger is not waited for.
        """
        timings = [m.node.settings.timing for m in self._members] or [self.simulation.timing]
        seconds = max(timing.down_after + settling(timing) for timing in timings)
        self._do("settle()", self.simulation.run, seconds)

    # Faults.

    def partition(self, *sides: "list[Which]") -> None:
        """Partition the network: no frame gets through between members of different sides."""
        named = [[self[which].name for which in side] for side in sides]
        self._do(f"partition{tuple(named)}", self.simulation.partition, *named)

    def cut(self, source: "Which", target: "Which") -> None:
        """Cut the line from one member to another, in this direction only."""
        names = self[source].name, self[target].name
        self._do(f"cut{names}", self.simulation.network.cut, *names)

    def heal(self) -> None:
        """Heal the network: frames get through between all members again."""
        self._do("heal()", self.simulation.heal)

    def kill(self, which: "Which") -> None:
        """End a node as `kill -9` ends its process: its presences and watches have ended."""
        member = self[which]
        self._do(f"kill({member.name!r})", self._end, member, self._running_node(member).abandon)

    def stop(self, which: "Which") -> None:
        """Stop a node with a goodbye, as `Node.stop` does."""
        member, run = self[which], self._running_node(which)
        linger = member.node.settings.linger
        self._do(f"stop({member.name!r})", self._end, member, lambda: run.leave(linger))

    def pause(self, which: "Which") -> None:
        """Suspend a process, as SIGSTOP does: it neither sends nor receives."""
        self._do(f"pause({self[which].name!r})", self._running_node(which).pause)

    def resume(self, which: "Which") -> None:
        """Resume a paused process."""
        self._do(f"resume({self[which].name!r})", self._running_node(which).resume)

    def restart(self, which: "Which") -> None:
        """Start a node again, with a new incarnation; a node that still runs is killed first.

        An adopted node should rather be started again by its application.
        """
        member = self[which]
        if member.node.running:
            self.kill(member)
        self._do(f"restart({member.name!r})", self._start, member)

    # Assertions.

    def assert_online(self, topic: str, *keys: str, on: "list[Which] | None" = None) -> None:
        """Check that every running member lists exactly these keys on a topic.

        Args:
            topic: The topic.
            keys: The keys that should be present on it, in any order.
            on: The members to check, such as one side of a partition; by default all.

        Raises:
            AssertionError: A member lists other keys. The message shows what each member lists, and
                everything done to the cluster so far.
        """
        __tracebackhide__ = True  # so pytest shows the line of the test
        asked = self._members if on is None else [self[which] for which in on]
        lists = self._in_loop(lambda: {m.name: self._keys(m, topic) for m in asked})
        expected = sorted(keys)
        if any(listed not in (None, expected) for listed in lists.values()):
            lists_shown = [
                f"  {name} {'is paused or does not run' if listed is None else f'lists {listed}'}"
                for name, listed in lists.items()
            ]
            story = ", ".join(self._story) or "nothing; `settle()` lets time pass"
            raise AssertionError(
                "\n".join(
                    [
                        f"{expected} should be on {topic!r}, and no other keys, but",
                        *lists_shown,
                        f"after, with seed {self.simulation.seed}: {story}",
                    ]
                )
            )

    def close(self) -> None:
        """Stop every node; adopted nodes run on sockets again when they start next."""
        with ExitStack() as stack:
            for member in self._members:
                stack.callback(member.give_back)
                if member.node.running:
                    stack.callback(self.stop, member)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _keys(self, member: ClusterMember, topic: str) -> list[str] | None:
        run = self._runs.get(member)
        if run is None or not run.running or run.paused:
            return None
        return sorted(run.view.render(topic))

    def _start(self, member: ClusterMember) -> None:
        # A node that this cluster started is used in the thread that started it first, even if
        # another thread runs the simulation.
        here = threading.get_ident()
        member.node.attach(self._threads.setdefault(member, here))
        self._running_node(member).begin()

    def _end(self, member: ClusterMember, how: Callable[[], None]) -> None:
        member.node.detach()
        how()

    def _running_node(self, which: "Which") -> SimulatedNode:
        member = self[which]
        if not member.node.running:
            raise UsageError(f"{member.name!r} does not run; `restart` starts it")
        return self._runs[member]

    def _do(self, step: str, action: Callable[..., None], *arguments: Any) -> None:
        self._story.append(step)
        self._in_loop(lambda: action(*arguments))

    def _in_loop(self, action: Callable[[], T]) -> T:
        """Run an action in the thread of the nodes' event loop, also if the test runs elsewhere."""
        loops = {run.loop for run in self._runs.values() if run.running and run.loop is not None}
        elsewhere = {loop for loop in loops if loop.is_running()} - {running_loop()}
        if not elsewhere:
            return action()
        if len(elsewhere) > 1:
            raise UsageError("the nodes of one cluster run in several event loops; use one")

        async def work() -> T:
            return action()

        return asyncio.run_coroutine_threadsafe(work(), elsewhere.pop()).result()


#: The ways to name a member: itself, its node, its name or its number.
Which = ClusterMember | adsum.Node | str | int


class MakeCluster(Protocol):
    """The type of the pytest fixture ``cluster``, for annotations."""

    def __call__(self, nodes: int, *, seed: int = 0, **settings: Any) -> Cluster:
        """Make a cluster of a number of nodes; arguments as of `Cluster`."""
