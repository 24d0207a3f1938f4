"""Two nodes with a link over a carrier and direct ones: exactly one direct link remains."""

from collections import deque
from random import Random

import pytest

from adsum.replication.effects import Close, Dial, Send
from adsum.replication.engine import Engine
from adsum.replication.messages import Heartbeat, ProtocolMessage
from adsum.replication.state import Replica
from adsum.replication.timing import Timing

ANN, ZOE = Replica("ann", 1), Replica("zoe", 1)
#: Frames of one link in one direction; None is its end.
Pipe = deque[ProtocolMessage | None]


class Pair:
    """Two engines; each link delivers its frames in order, and links among each other in any."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.now = 0.0
        self.ends = [Engine(replica, Timing(), Random(seed), 0.0) for replica in (ANN, ZOE)]
        #: The frames to each end, by link, and the ends at which a link has opened and not closed.
        self.pipes: list[dict[int, Pipe]] = [{}, {}]
        self.open: list[set[int]] = [set(), set()]
        self.direct: dict[int, bool] = {}
        #: The handshakes that the dialler has yet to complete: link and end.
        self.unfinished: list[tuple[int, int]] = []
        #: The statuses that the ends have listed after any step.
        self.statuses: set[str] = set()

    def dial(self, dialler: int, *, direct: bool) -> None:
        """Open a link at the acceptor; the dialler completes it in a later step."""
        link = len(self.direct)
        self.direct[link] = direct
        self.pipes[0][link], self.pipes[1][link] = Pipe(), Pipe()
        self._open(link, 1 - dialler, None)
        self.unfinished.append((link, dialler))

    def _open(self, link: int, end: int, address: str | None) -> None:
        peer = self.ends[1 - end].replica
        self.open[end].add(link)
        direct = self.direct[link]
        self.ends[end].link_up(link, peer, (), address, self.now, direct=direct)
        self._perform(end)

    def _perform(self, end: int) -> None:
        while effects := self.ends[end].take_effects():
            for effect in effects:
                if isinstance(effect, Send):
                    for link in effect.links:
                        self.pipes[1 - end][link].append(effect.message)
                elif isinstance(effect, Close):
                    self.open[end].discard(effect.link)
                    self.pipes[1 - end][effect.link].append(None)

    def step(self) -> bool:
        """Complete a handshake or deliver a frame, chosen at random; returns whether one was."""
        ready = [(end, link) for end in (0, 1) for link in self.open[end] if self.pipes[end][link]]
        choice = self.rng.randrange(len(ready) + len(self.unfinished) or 1)
        if choice < len(ready):
            end, link = ready[choice]
            self._deliver(end, link)
        elif self.unfinished:
            link, end = self.unfinished.pop(choice - len(ready))
            self._open(link, end, f"address {link}")
        else:
            return False
        self.statuses |= {info.status for end in self.ends for info in end.members()}
        return True

    def _deliver(self, end: int, link: int) -> None:
        message = self.pipes[end][link].popleft()
        if message is None:
            self.open[end].discard(link)
            self.ends[end].link_down(link, self.now)
        else:
            self.ends[end].receive(link, message, self.now)
        self._perform(end)

    def run(self, seconds: float) -> None:
        """Deliver everything, and let time pass."""
        until = self.now + seconds
        while self.now < until:
            for end in (0, 1):
                self.ends[end].tick(self.now)
                self._perform(end)
            while self.step():
                pass
            self.now += 0.25

    @property
    def kinds(self) -> list[list[bool]]:
        """For each end, whether each of its links is direct."""
        return [[self.direct[link] for link in sorted(links)] for links in self.open]


@pytest.mark.parametrize("dialler", [0, 1], ids=["smaller dials", "larger dials"])
@pytest.mark.parametrize("other", [0, 1], ids=["smaller dialled", "larger dialled"])
@pytest.mark.parametrize("order", ["carrier first", "direct first", "at once"])
@pytest.mark.parametrize("pause", [0.5, 5.0], ids=["soon", "later"])
def test_one_direct_link_remains_of_links_of_both_kinds_in_any_order(
    dialler: int, other: int, order: str, pause: float
) -> None:
    for seed in range(12):
        pair = Pair(seed)
        pair.dial(dialler, direct=order == "direct first")
        if order != "at once":
            pair.run(pause)
        pair.dial(other, direct=order != "direct first")
        pair.run(3.0)
        assert pair.kinds == [[True], [True]], seed
        assert pair.open[0] == pair.open[1]
        assert pair.statuses == {"self", "up"}, "there was a moment without a link"


def test_any_number_of_links_at_once_leaves_one_direct_link() -> None:
    for seed in range(100):
        pair = Pair(seed)
        for _ in range(pair.rng.randint(2, 5)):
            pair.dial(pair.rng.randrange(2), direct=pair.rng.random() < 0.5)
            for _ in range(pair.rng.randrange(8)):
                pair.step()
        pair.dial(pair.rng.randrange(2), direct=True)
        pair.run(5.0)
        assert pair.open[0] == pair.open[1], seed
        assert all(kinds and all(kinds) for kinds in pair.kinds), seed


def test_links_over_carriers_alone_leave_one() -> None:
    for seed in range(50):
        pair = Pair(seed)
        for dialler in (0, 1):
            pair.dial(dialler, direct=False)
        pair.run(3.0)
        assert pair.kinds == [[False], [False]], seed


@pytest.fixture
def carried() -> Engine:
    """An engine with link 1, over a carrier, to ann, who has sent a heartbeat."""
    engine = Engine(ZOE, Timing(), Random(1), 0.0)
    engine.link_up(1, ANN, ("unix:ann", "bus:ann"), None, 0.0, direct=False)
    engine.receive(1, Heartbeat(1, 0), 0.0)
    engine.tick(0.0)
    engine.take_effects()
    return engine


def closed(engine: Engine) -> list[int]:
    return [effect.link for effect in engine.take_effects() if isinstance(effect, Close)]


def dialled(engine: Engine) -> list[str]:
    return [effect.address for effect in engine.take_effects() if isinstance(effect, Dial)]


def test_link_over_a_carrier_is_kept_until_the_first_frame_over_the_direct_one(
    carried: Engine,
) -> None:
    carried.link_up(2, ANN, (), "unix:ann", 2.0)
    assert closed(carried) == []
    carried.receive(2, Heartbeat(2, 0), 2.1)
    assert closed(carried) == [1]


@pytest.mark.parametrize("held", [False, True])
def test_new_link_beside_a_young_one_is_kept_if_that_is_held(held: bool) -> None:
    """The peer has lost the held one, and dials."""
    engine = Engine(ANN, Timing(), Random(1), 0.0)
    engine.link_up(1, ZOE, (), None, 0.0, direct=False)
    engine.receive(1, Heartbeat(1, 0), 0.0)
    if held:
        engine.hold([1], True, 0.1)
    engine.link_up(2, ZOE, (), None, 0.2, direct=False)
    assert closed(engine) == ([] if held else [2])
    engine.receive(2, Heartbeat(2, 0), 0.2)
    assert closed(engine) == ([1] if held else [])


def test_new_link_over_a_carrier_beside_a_working_direct_one_is_closed_at_once() -> None:
    engine = Engine(ZOE, Timing(), Random(1), 0.0)
    engine.link_up(1, ANN, (), None, 0.0)
    engine.receive(1, Heartbeat(1, 0), 0.0)
    engine.link_up(2, ANN, (), None, 0.1, direct=False)
    assert closed(engine) == [2]


def test_link_over_a_carrier_beside_a_silent_direct_one_is_kept(carried: Engine) -> None:
    """The direct link is dead, and a peer that dials knows that it is."""
    carried.link_up(2, ANN, (), None, 0.1)
    carried.receive(2, Heartbeat(2, 0), 0.1)
    assert closed(carried) == [1]
    for tenth in range(1, 30):
        carried.tick(tenth / 10)
    carried.take_effects()
    carried.link_up(3, ANN, (), None, 3.0, direct=False)
    assert closed(carried) == []
    carried.receive(2, Heartbeat(3, 0), 3.1)  # it was only slow
    assert closed(carried) == [3]


def test_discovered_sibling_with_a_link_over_a_carrier_is_dialled(carried: Engine) -> None:
    assert carried.lacks_direct_link("ann")
    carried.add_seed("unix:ann", lasting=False)
    carried.tick(0.1)
    assert dialled(carried) == ["unix:ann"]
    carried.link_up(2, ANN, (), "unix:ann", 0.2)
    carried.receive(2, Heartbeat(2, 0), 0.2)
    assert closed(carried) == [1]
    assert not carried.lacks_direct_link("ann")
    for now in range(1, 60):
        carried.receive(2, Heartbeat(2 + now, 0), float(now))
        carried.tick(float(now))
    assert dialled(carried) == []


def test_member_with_a_link_over_a_carrier_is_not_dialled_at_its_other_addresses(
    carried: Engine,
) -> None:
    for now in range(1, 60):
        carried.receive(1, Heartbeat(2 + now, 0), float(now))
        carried.tick(float(now))
    assert dialled(carried) == []


def test_seed_on_the_carrier_is_not_dialled_beside_a_link_over_it(carried: Engine) -> None:
    carried.add_seed("bus:ann", lasting=False, direct=False)
    carried.tick(0.1)
    assert dialled(carried) == ["bus:ann"]
    carried.link_up(2, ANN, (), "bus:ann", 0.2, direct=False)
    carried.link_down(2, 0.3)  # there is a link already
    for now in range(1, 60):
        carried.receive(1, Heartbeat(2 + now, 0), float(now))
        carried.tick(float(now))
    assert dialled(carried) == []


def test_sibling_whose_direct_link_is_lost_beside_another_is_dialled_again(
    carried: Engine,
) -> None:
    carried.add_seed("unix:ann", lasting=False)
    carried.tick(0.1)
    carried.link_up(2, ANN, (), "unix:ann", 0.2)
    carried.receive(2, Heartbeat(2, 0), 0.2)
    carried.tick(2.0)
    carried.link_up(3, ANN, (), None, 3.0, direct=False)  # link 2 is silent
    carried.take_effects()
    carried.link_down(2, 3.1)
    carried.tick(3.1)
    assert dialled(carried) == ["unix:ann"]
    [info] = [info for info in carried.members() if info.name == "ann"]
    assert info.status == "up"
