"""Whatever happens to a few engines, they never show what never was, and agree when it ends."""

from collections import deque
from collections.abc import Iterator
from itertools import combinations, permutations
from random import Random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from adsum.replication.codec import decode, encode
from adsum.replication.effects import Close, Dial, Effect, Send
from adsum.replication.engine import Engine
from adsum.replication.entry import ID, INCARNATION, META, NAME, Entry
from adsum.replication.state import Replica
from adsum.replication.timing import Timing
from tests.support.effort import examples

from .strategies import TOPICS, History, Observer, check_lists, numbers, picked, tight

TIMING = Timing()
#: When faults have ended, all agree after this many heartbeats: a life that ended unnoticed is
#: doubted for two of them before another may take its name, and a request that was lost with its
#: link is made again within a few more.
ENOUGH = 10


@pytest.fixture(scope="module", autouse=True)
def _tight() -> Iterator[None]:
    with tight():
        yield


class Wire:
    """One link, as TCP makes it: what is under way to each open end, in order, and its end."""

    def __init__(self, first: str, second: str) -> None:
        self.to: dict[str, deque[bytes | None]] = {first: deque(), second: deque()}

    def send(self, sender: str, data: bytes | None) -> None:
        for name, queue in self.to.items():
            if name != sender:
                queue.append(data)

    @property
    def whole(self) -> bool:
        return len(self.to) == 2 and not any(None in queue for queue in self.to.values())

    def close(self, name: str) -> None:
        """One end goes; the other hears of it after all that was sent before."""
        if name in self.to:
            del self.to[name]
            self.send(name, None)

    def cut(self, *, lost: bool) -> None:
        for queue in self.to.values():
            if lost:
                queue.clear()
            queue.append(None)


class Node:
    """An engine, who looks at it, and how far it had come with each slice."""

    def __init__(self, replica: Replica, now: float) -> None:
        self.replica = replica
        self.engine = Engine(replica, TIMING, Random(replica.incarnation), now)
        self.observer = Observer(self.engine.view)
        self.horizons: dict[Replica, int] = {}

    @property
    def shown(self) -> list[Entry]:
        return [entry for topic in TOPICS for entry in self.engine.view.all_entries(topic)]


class Cluster(RuleBasedStateMachine):
    """Real engines and the real codec; the model is what each replica did, told naively."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.nodes: dict[str, Node] = {}
        self.wires: dict[int, Wire] = {}
        #: What every life of every name did.
        self.model: dict[Replica, History] = {}
        self.made = 0

    @initialize(count=st.integers(2, 3))
    def begin(self, count: int) -> None:
        for name in ("a", "b", "c")[:count]:
            self.start(name)
        self.join_all()

    # What users do.

    @rule(who=numbers, pick=numbers, count=st.sampled_from([1, 1, 8]))
    def track(self, who: int, pick: int, count: int) -> None:
        node = self.node(who)
        for number in range(pick, pick + count):
            entry = self.model[node.replica].track(*picked(number))
            assert node.engine.track(*picked(number)) == entry

    @rule(who=numbers, pick=numbers)
    def update(self, who: int, pick: int) -> None:
        node = self.node(who)
        history = self.model[node.replica]
        if history.now:
            old = list(history.now.values())[pick % len(history.now)]
            new = history.update(old[ID], f'{{"updated":{pick}}}')
            assert node.engine.update(old, new[META]) == new

    @rule(who=numbers, pick=numbers)
    def untrack(self, who: int, pick: int) -> None:
        node = self.node(who)
        present = list(self.model[node.replica].now.values())
        for entry in present[pick % len(present) :][:1] if present else []:
            self.end(node, entry)

    @rule(who=numbers)
    def untrack_all(self, who: int) -> None:
        node = self.node(who)
        for entry in list(self.model[node.replica].now.values()):
            self.end(node, entry)

    def end(self, node: Node, entry: Entry) -> None:
        self.model[node.replica].untrack(entry[ID])
        node.engine.untrack(entry)

    # What the world does.

    @rule(pick=numbers, count=st.sampled_from([1, 1, 5, 20]))
    def deliver(self, pick: int, count: int) -> None:
        ways = [(id, name) for id, wire in self.wires.items() for name in wire.to if wire.to[name]]
        for _ in range(count if ways else 0):
            self.deliver_one(*ways[pick % len(ways)])

    @rule(seconds=st.sampled_from([0.01, 1.0]))
    def calm(self, seconds: float) -> None:
        """Nothing happens for a while, so that there is something to lose."""
        self.deliver_all()
        self.wait(seconds)
        self.deliver_all()

    @rule(pick=numbers, lost=st.booleans())
    def cut(self, pick: int, lost: bool) -> None:
        whole = [wire for wire in self.wires.values() if wire.whole]
        for wire in whole[pick % len(whole) :][:1] if whole else []:
            wire.cut(lost=lost)

    @rule(pick=numbers, again=st.sampled_from([False, False, False, True]))
    def link(self, pick: int, again: bool) -> None:
        pairs = list(permutations(self.nodes, 2))
        first, second = pairs[pick % len(pairs)]
        if again or not self.linked(first, second):
            self.join(first, second)

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.3, 1.0, 3.0, 8.0]))
    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while (at := min(node.engine.wake_at for node in self.nodes.values())) < until:
            self.tick(max(self.now, at))
        self.tick(until)

    @rule(who=numbers, goodbye=st.booleans(), at_once=st.booleans())
    def restart(self, who: int, goodbye: bool, at_once: bool) -> None:
        """A process ends, and another begins with its name; it may be back before it is missed."""
        node = self.node(who)
        if goodbye:
            node.engine.leave(0.5)
            self.settle(node)
        for wire in self.wires.values():
            wire.close(node.replica.name)
        self.start(node.replica.name)
        if at_once:
            self.deliver_all()
            self.join_all()

    # What holds after each step.

    @invariant()
    def what_is_held_is_what_its_owner_had_at_that_version(self) -> None:
        for node in self.nodes.values():
            for replica, slice in node.engine.slices().items():
                assert slice.entries == self.model[replica].contents[slice.horizon]

    @invariant()
    def own_changes_are_visible_at_once_and_others_as_a_whole(self) -> None:
        for node in self.nodes.values():
            slices = node.engine.slices()
            assert slices[node.replica].horizon == len(self.model[node.replica].changes)
            who = {Replica(entry[NAME], entry[INCARNATION]) for entry in node.shown}
            shown = [slices[replica].entries.values() for replica in who | {node.replica}]
            check_lists(node.engine.view, [entry for entries in shown for entry in entries])

    @invariant()
    def what_observers_were_told_folds_to_what_is_shown(self) -> None:
        for node in self.nodes.values():
            node.observer.look()

    @invariant()
    def horizons_never_go_back(self) -> None:
        for node in self.nodes.values():
            before, slices = node.horizons, node.engine.slices()
            node.horizons = {replica: slice.horizon for replica, slice in slices.items()}
            changed = {r: (before.get(r, 0), now) for r, now in node.horizons.items()}
            assert {r: (was, now) for r, (was, now) in changed.items() if now < was} == {}

    def teardown(self) -> None:
        """All faults end; soon every engine shows exactly what is tracked."""
        for _ in range(ENOUGH):
            self.deliver_all()
            self.join_all()
            self.deliver_all()
            self.wait(TIMING.heartbeat_interval)
        self.deliver_all()
        tracked = [e for node in self.nodes.values() for e in self.model[node.replica].now.values()]
        for node in self.nodes.values():
            node.observer.look()
            check_lists(node.engine.view, tracked)

    # How it is done.

    def node(self, number: int) -> Node:
        return list(self.nodes.values())[number % len(self.nodes)]

    def linked(self, first: str, second: str) -> bool:
        return any(wire.whole and wire.to.keys() == {first, second} for wire in self.wires.values())

    def start(self, name: str) -> None:
        replica = Replica(name, len(self.model) + 1)
        self.model[replica] = History(replica)
        self.nodes[name] = Node(replica, self.now)

    def join(self, dialler: str, acceptor: str) -> None:
        """Open a link; either end may close it at once."""
        self.made += 1
        self.wires[self.made] = Wire(dialler, acceptor)
        for name, other, dialled in ((dialler, acceptor, acceptor), (acceptor, dialler, None)):
            node, peer = self.nodes[name], self.nodes[other].replica
            node.engine.link_up(self.made, peer, (other,), dialled, self.now)
            self.settle(node)

    def join_all(self) -> None:
        for first, second in combinations(self.nodes, 2):
            if not self.linked(first, second):
                self.join(first, second)

    def tick(self, now: float) -> None:
        self.now = now
        for node in self.nodes.values():
            node.engine.tick(now)
            self.settle(node)

    def deliver_all(self) -> None:
        while any(any(wire.to.values()) for wire in self.wires.values()):
            for id, wire in list(self.wires.items()):
                for name in list(wire.to):
                    self.deliver_one(id, name)
            self.tick(self.now)

    def deliver_one(self, id: int, name: str) -> None:
        wire, node = self.wires[id], self.nodes[name]
        queue = wire.to.get(name)
        if not queue:
            return
        data = queue.popleft()
        if data is None:
            del wire.to[name]
            node.engine.link_down(id, self.now)
        else:
            node.engine.receive(id, decode(data), self.now)
        self.settle(node)

    def settle(self, node: Node) -> None:
        """Do what an engine asks for."""
        while effects := node.engine.take_effects():
            for effect in effects:
                self.perform(node, effect)

    def perform(self, node: Node, effect: Effect) -> None:
        match effect:
            case Send(links, message):
                for link in links:
                    self.wires[link].send(node.replica.name, encode(message))
            case Close(link, _):
                self.wires[link].close(node.replica.name)
            case Dial(address):
                node.engine.dial_failed(address, False, self.now)  # links are made by the rules


TestCluster = Cluster.TestCase
TestCluster.settings = examples(100, steps=50)
