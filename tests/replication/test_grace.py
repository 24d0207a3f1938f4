"""Deadlines of lingering presences: kept in active time, in order, bounded, and taken over."""

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.replication import grace
from adsum.replication.engine import Engine
from adsum.replication.entry import ID, KEY, META, PREVIOUS, Entry
from adsum.replication.grace import PASSING, Claim, Grace, PriorityQueue
from adsum.replication.state import Replica
from adsum.replication.timing import Timing
from adsum.testing import BrokenLawError, Simulation
from adsum.testing.simulator.laws import RecordedEngine

ANN = Claim("session of ann", "session of ann")
TASK = Claim("a task", PASSING)
OTHER_TASK = Claim("another task", PASSING)


class Lone:
    """An engine without peers, and the time of its driver."""

    def __init__(self) -> None:
        self.engine = Engine(Replica("n1", 1), Timing(), Random(1), 0.0)
        self.now = 0.0

    def lose(
        self, seconds: float, claim: Claim | None = ANN, key: str = "ann", meta: str = "{}"
    ) -> Entry:
        """Track a presence that has broken."""
        entry = self.engine.track("room", key, meta)
        self.engine.linger(entry, seconds, claim, None, self.now)
        return entry

    def run(self, seconds: float) -> None:
        """Tick at each deadline, as a driver does."""
        until = self.now + seconds
        while (at := max(self.now, self.engine.wake_at)) <= until:
            self.now = at
            self.engine.tick(at)
            self.engine.take_effects()
        self.now = until

    @property
    def keys(self) -> list[str]:
        return sorted(self.engine.view.render("room"))


@pytest.fixture
def lone() -> Lone:
    return Lone()


def test_tick_is_requested_for_the_earliest_deadline(lone: Lone) -> None:
    lone.run(5.0)
    lone.lose(0.25)
    assert lone.engine.wake_at <= lone.now + 0.25
    lone.run(0.249)
    assert lone.keys == ["ann"]
    lone.run(0.002)
    assert lone.keys == []
    assert len(lone.engine.lingering_ids) == 0


def test_deadline_counts_from_the_break_and_not_from_the_tick_before(lone: Lone) -> None:
    lone.run(10.0)
    lone.now += 0.9  # within the patience of a heartbeat, nothing happens
    lone.lose(2.0)
    lone.run(1.99)
    assert lone.keys == ["ann"]


def test_time_without_a_tick_shortens_no_grace(lone: Lone) -> None:
    lone.lose(15.0)
    lone.now += 3600.0
    lone.run(13.0)
    assert lone.keys == ["ann"]
    lone.run(2.1)
    assert lone.keys == []


def test_new_grace_replaces_the_deadline_and_the_claim(lone: Lone) -> None:
    entry = lone.lose(1.0, ANN)
    lone.engine.linger(entry, 5.0, None, None, lone.now)
    assert lone.engine.take_over("room", "ann", "{}", ANN) is None
    lone.run(4.9)
    assert lone.keys == ["ann"]
    lone.run(0.2)
    assert lone.keys == []


def test_take_over_updates_in_place_and_ends_the_grace(lone: Lone) -> None:
    entry = lone.lose(1.0)
    taken = lone.engine.take_over("room", "ann", '{"n":1}', ANN)
    assert taken is not None
    assert (taken[ID], taken[META], taken[PREVIOUS]) == (entry[ID], '{"n":1}', entry[ID])
    assert lone.engine.take_over("room", "ann", "{}", ANN) is None
    lone.run(5.0)
    assert lone.keys == ["ann"]


@pytest.mark.parametrize(
    ("had", "comes", "taken"),
    [
        (ANN, ANN, True),
        (TASK, OTHER_TASK, True),
        (ANN, Claim("session of bob", "session of bob"), False),
        (ANN, TASK, False),
        (TASK, ANN, False),
        (None, ANN, False),
        (None, TASK, False),
    ],
)
def test_only_heirs_take_over(lone: Lone, had: Claim | None, comes: Claim, taken: bool) -> None:
    lone.lose(1.0, had)
    assert (lone.engine.take_over("room", "ann", "{}", comes) is not None) == taken


def test_heir_takes_over_the_presence_with_the_earliest_deadline(lone: Lone) -> None:
    entries = [lone.lose(seconds, TASK) for seconds in (7.0, 5.0, 6.0)]
    order = [lone.engine.take_over("room", "ann", "{}", OTHER_TASK) for _ in entries]
    assert order == [entries[1], entries[2], entries[0]]


def test_owner_has_its_own_lingering_presences(lone: Lone) -> None:
    mine, _ = lone.lose(1.0, TASK), lone.lose(1.0, OTHER_TASK)
    assert lone.engine.lingering_of(TASK) == [mine]
    lone.engine.untrack(mine)
    assert lone.engine.lingering_of(TASK) == []
    assert len(lone.engine.lingering_ids) == 1


def test_owner_that_changed_its_hash_delays_no_deadline(lone: Lone) -> None:
    class Owner:
        value = 1

        def __hash__(self) -> int:
            return self.value

        def __eq__(self, other: object) -> bool:
            return self is other

    owner = Owner()
    lone.lose(1.0, Claim(owner, owner))
    owner.value = 2
    lone.run(1.1)
    assert lone.keys == []


def test_presence_with_the_earliest_deadline_ends_above_the_bound(
    lone: Lone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grace, "MAX_LINGERING", 2)
    for key, seconds in (("ann", 3.0), ("bob", 2.0), ("cat", 1.0), ("dan", 4.0)):
        lone.lose(seconds, ANN, key)
    assert lone.keys == ["ann", "dan"]


def test_key_with_the_most_presences_ends_one_of_its_own_above_the_bound(
    lone: Lone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grace, "MAX_LINGERING", 4)
    lone.lose(1.0, ANN, "ann")
    lone.lose(1.0, ANN, "bob")
    for number in range(10):
        lone.lose(15.0 + number, Claim(number, number), "eve")
    assert lone.keys == ["ann", "bob", "eve"]
    assert len(lone.engine.lingering_ids) == 4
    lone.run(22.9)  # the last two of eve are left
    assert len(lone.engine.lingering_ids) == 2


def test_key_loses_no_more_presences_than_the_others_have(
    lone: Lone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grace, "MAX_LINGERING", 4)
    for number in range(3):
        lone.lose(2.0, Claim(number, number), "eve")
    for number in range(3):
        lone.lose(1.0, Claim(number, number), "ann")
    assert lone.keys == ["ann", "eve"]
    lone.run(1.5)
    assert len(lone.engine.lingering_ids) == 2


def test_largest_meta_ends_above_the_bound_on_their_size(
    lone: Lone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grace, "MAX_LINGERING_SIZE", 100)
    lone.lose(1.0, ANN, "ann")
    for number in range(5):
        meta = f'{{"x":"{"y" * (30 + number)}"}}'
        lone.lose(15.0, Claim(number, number), f"eve {number}", meta)
    assert lone.keys == ["ann", "eve 0", "eve 1"]
    lone.engine.take_over("room", "eve 0", "{}", Claim(0, 0))
    lone.lose(15.0, Claim(9, 9), "bob", '{"x":"fits again"}')
    assert lone.keys == ["ann", "bob", "eve 0", "eve 1"]


def test_tick_ends_a_bounded_number_of_presences(
    lone: Lone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grace, "MOST_AT_ONCE", 10)
    for number in range(25):
        lone.lose(1.0, ANN, str(number))
    lone.now += 1.0
    counts = []
    while lone.keys:
        lone.engine.tick(lone.now)
        lone.now = max(lone.now, lone.engine.wake_at) if lone.keys else lone.now
        counts.append(len(lone.keys))
    assert counts == [15, 5, 0]
    assert lone.now == 1.0


actions = st.lists(
    st.tuples(
        st.sampled_from(["keep", "forget", "take", "expire"]),
        st.integers(0, 9),
        st.floats(0.0, 10.0),
        st.sampled_from([ANN, TASK, OTHER_TASK, None]),
    ),
    max_size=80,
)


@given(actions)
def test_table_agrees_with_a_list_that_is_searched(actions: list[Any]) -> None:
    table = Grace()
    known: dict[int, tuple[float, Claim | None]] = {}
    for action, id, seconds, claim in actions:
        if action == "keep":
            entry: Entry = (id, id, "room", "ann", "{}", None, "n1", 1)
            table.keep(entry, seconds, claim, None)
            known[id] = (seconds, claim)
        elif action == "forget":
            table.forget(id)
            known.pop(id, None)
        elif action == "take" and claim is not None:
            fitting = [
                (deadline, id)
                for id, (deadline, had) in known.items()
                if had is not None and had.heir == claim.heir
            ]
            assert table.heritage("room", "ann", claim) == (min(fitting)[1] if fitting else None)
            assert sorted(table.of(claim)) == sorted(id for id in known if known[id][1] == claim)
        elif action == "expire":
            for due in table.due(seconds):
                assert known.pop(due)[0] <= seconds
                table.forget(due)
            assert all(deadline > seconds for deadline, _ in known.values())
        assert len(table) == len(known)
        assert table.check_at == min((one[0] for one in known.values()), default=float("inf"))
        assert [size for size in table.sizes() if size.value > size.bound] == []


def test_queue_keeps_few_removed_numbers() -> None:
    queue = PriorityQueue()
    queue.add(0, 0.0)
    for number in range(1, 1000):
        queue.add(number, float(number))
        queue.remove(number)
    assert len(queue) == 1
    assert queue.spare < 50
    assert queue.first == 0


# The law of the simulator.


def simulated() -> tuple[Simulation, RecordedEngine]:
    """Two nodes, and the engine of the first; a presence there lingers for 5 s."""
    simulation = Simulation(2, seed=1)
    node = simulation.node("n1")
    entry = node.track("room", "ann", {"n": 1})
    simulation.run(0.5)
    node.linger(entry, 5.0, ANN)
    assert isinstance(node.engine, RecordedEngine)
    return simulation, node.engine


def test_lingering_presence_is_shown_on_other_nodes_until_its_deadline() -> None:
    simulation, _ = simulated()
    simulation.run(4.9)
    assert list(simulation.node("n2").present("room")) == ["ann"]
    simulation.run(0.2)
    assert simulation.node("n2").present("room") == {}


def test_law_notices_an_expiry_before_the_deadline() -> None:
    simulation, engine = simulated()
    simulation.run(1.0)
    [entry] = engine.own_slice.entries.values()
    with pytest.raises(BrokenLawError, match=r"departs 4.* s before its deadline"):
        engine.expire(entry)


def test_law_notices_a_presence_that_outlives_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simulation, _ = simulated()
    monkeypatch.setattr(Grace, "due", lambda self, now: ())
    monkeypatch.setattr(Grace, "check_at", float("inf"))
    with pytest.raises(BrokenLawError, match="after its deadline"):
        simulation.run(10.0)


def test_law_notices_an_heir_that_is_given_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation, _ = simulated()
    monkeypatch.setattr(Grace, "heritage", lambda *_: None)
    with pytest.raises(BrokenLawError, match="is given None of 'ann', and not 1"):
        simulation.node("n1").take_over("room", "ann", "{}", ANN)


def test_law_notices_a_stranger_that_takes_over() -> None:
    simulation, engine = simulated()
    [entry] = engine.own_slice.entries.values()
    engine.linger(entry, 5.0, TASK, None, simulation.clock.now)
    stranger = Claim("session of bob", "session of bob")
    engine._grace.heritage = lambda *_: entry[ID]  # type: ignore[method-assign]  # a wrong rule
    with pytest.raises(BrokenLawError, match=f"is given {entry[ID]} of {entry[KEY]!r}"):
        engine.take_over("room", "ann", "{}", stranger)


class Renamed:
    """An owner that is equal to those of its name, which may change."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __hash__(self) -> int:
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Renamed) and self.name == other.name


@pytest.mark.parametrize("later", ["ben", "cat"])
def test_presence_whose_owner_changed_its_hash_leaves_at_its_deadline(
    lone: Lone, later: str
) -> None:
    ann, twin, ben = Renamed("ann"), Renamed("ann"), Renamed("ben")
    for owner in (ann, twin, ben):
        lone.lose(1.0, Claim(owner, owner))
    twin.name = ann.name = later
    lone.run(1.1)
    assert (lone.keys, len(lone.engine.lingering_ids)) == ([], 0)
    assert [(size.name, size.value) for size in lone.engine._grace.sizes() if size.value] == []
    ann.name = "ann"
    assert lone.engine.take_over("room", "ann", "{}", Claim(ann, ann)) is None
    assert lone.engine.lingering_of(Claim(ann, ann)) == []
