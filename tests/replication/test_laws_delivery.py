"""However the frames of a slice are delivered, the receiver ends with what its owner has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.replication import streams
from adsum.replication.entry import ID
from adsum.replication.messages import Delta, Sync
from adsum.replication.state import Replica
from adsum.replication.streams import SliceFeed, cut
from adsum.replication.timing import Timing
from tests.support.effort import examples

from .strategies import Action, History, Peer, check_lists, numbers, picked, sequences, tight, verbs

ME, OWNER = Replica("me", 1), Replica("owner", 7)
PATIENCE = Timing().sync_timeout

#: What may happen to a frame that is under way: it arrives, for good or not, or it is lost.
FATES = ("deliver", "repeat", "drop")

laws = examples(150)
steps = sequences(
    st.one_of(
        st.tuples(verbs, numbers),
        st.tuples(st.sampled_from(["crowd", "churn"]), st.integers(1, 9)),
        st.tuples(st.just("send"), st.integers(1, 400)),
        st.tuples(st.sampled_from([*FATES, "deliver", "tell", "relay"]), numbers),
    ),
)


class Transfer:
    """An owner, a receiver that follows it, and what is under way between them.

    Attributes:
        under_way: The frames that were sent and did not arrive.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.history = History(OWNER)
        self.owner, self.receiver = Peer(OWNER), Peer(ME)
        self.under_way: list[Delta] = []
        self._to_me, self._to_owner = self.owner.open(1, ME), self.receiver.open(1, OWNER)
        self._another = self.receiver.open(2, OWNER)
        self._horizon = 0
        self.receiver.hold(OWNER)
        self.receiver.ask(self._to_owner, OWNER)
        self._answer()

    def act(self, verb: str, pick: int) -> None:
        self.history.act(verb, pick)
        self.write()

    def write(self) -> None:
        """Let the owner do what it has done according to its history."""
        self.history.write(self.owner.exchange.own.slice, len(self.history.changes))
        self.owner.exchange.changed()

    def crowd(self, count: int) -> None:
        """Many come, so that what is sent next takes several frames."""
        for number in range(count):
            self.history.track(*picked(number))
        self.write()

    def churn(self, count: int) -> None:
        """Many come and leave, so that removals are forgotten."""
        for number in range(count):
            self.history.untrack(self.history.track(*picked(number))[ID])
        self.write()

    def send(self, budget: int) -> None:
        """Let the owner send what it has, in frames of a size."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(streams, "DELTA_BUDGET", budget)
            self.owner.exchange.flush(self.now)
        self.under_way += [frame for frame in self.owner.sent() if isinstance(frame, Delta)]

    def deliver(self, index: int, *, keep: bool = False) -> None:
        frame = self.under_way[index] if keep else self.under_way.pop(index)
        self.receiver.exchange.receive(self._to_owner, frame, self.now)
        self._answer()
        self.look()

    def relay(self) -> None:
        """Everything comes at once another way, and overtakes what is under way."""
        slice = self.owner.exchange.own.slice
        cursor, reset = SliceFeed(self.receiver.slice(OWNER).horizon, follow=True).position(slice)
        with tight(frame=10**6):
            whole = cut(slice, cursor, reset)
        self.receiver.exchange.receive(self._another, whole, self.now)
        self._answer()
        self.look()

    def tell(self) -> None:
        """Time passes, and a heartbeat of the owner tells its version."""
        self.now += PATIENCE
        self.receiver.exchange.give_up_stalled(self.now)
        if self.receiver.slice(OWNER).horizon < len(self.history.changes):
            self.receiver.ask(self._to_owner, OWNER, self.now)
        self._answer()

    def end(self) -> None:
        """Let everything arrive that is sent from now on, in the order in which it is sent."""
        for _ in range(3):
            while self.under_way or self.owner.exchange.flush_at < float("inf"):
                self.send(150)
                if self.under_way:
                    self.deliver(0)
            self.tell()

    def look(self) -> None:
        """The horizon went forward if at all, and all that was told and is shown fits together."""
        held = self.receiver.slice(OWNER)
        assert held.horizon >= self._horizon
        self._horizon = held.horizon
        self.receiver.observer.look()
        check_lists(self.receiver.view, held.entries.values())

    def check_exact(self) -> None:
        """The receiver has the entries that the owner had at that version."""
        held = self.receiver.slice(OWNER)
        assert held.entries == self.history.contents[held.horizon]

    def check_complete(self) -> None:
        """The receiver has all entries of the owner, at its last version."""
        held = self.receiver.slice(OWNER)
        assert (held.horizon, held.entries) == (len(self.history.changes), self.history.now)

    def _answer(self) -> None:
        for question in self.receiver.sent():
            assert isinstance(question, Sync)
            assert self.owner.exchange.feed(self._to_me, question)


def take(transfer: Transfer, step: str, index: int) -> None:
    """Deliver, repeat or lose a frame, if any is under way."""
    if not transfer.under_way:
        return
    if step == "drop":
        del transfer.under_way[index]
    else:
        transfer.deliver(index, keep=step == "repeat")


def go(transfer: Transfer, step: str, number: int, *, in_order: bool) -> None:
    if step in ("send", "crowd", "churn"):
        getattr(transfer, step)(number)
    elif step in ("tell", "relay"):
        getattr(transfer, step)()
    elif step in FATES:
        take(transfer, step, 0 if in_order else number % max(1, len(transfer.under_way)))
    else:
        transfer.act(step, number)


@laws
@given(steps)
def test_lost_and_duplicate_frames_converge_without_partial_state(
    steps: list[Action],
) -> None:
    transfer = Transfer()
    with tight():
        for step in steps:
            go(transfer, *step, in_order=True)
            transfer.check_exact()
        transfer.end()
    transfer.check_complete()


@laws
@given(steps)
def test_reordered_frames_converge_while_all_tombstones_are_kept(
    steps: list[Action],
) -> None:
    transfer = Transfer()
    with tight(history=10**6):
        for step in steps:
            go(transfer, *step, in_order=False)
        transfer.end()
    transfer.check_complete()


rounds = st.lists(
    st.tuples(
        st.integers(1, 400), st.sampled_from(["deliver", "deliver", "wait"]), st.integers(0, 9)
    ),
    max_size=12,
)


@laws
@given(st.integers(1, 20), rounds)
def test_reset_restarted_at_any_point_converges(
    count: int, rounds: list[tuple[int, str, int]]
) -> None:
    transfer = Transfer()
    with tight():
        transfer.crowd(count)
        transfer.churn(2 * count + 5)
        for budget, fate, leavers in rounds:
            transfer.send(budget)
            if fate == "deliver":
                take(transfer, fate, 0)
            for _ in range(leavers):
                transfer.act("untrack", leavers)
            transfer.churn(leavers)
            transfer.check_exact()
        transfer.end()
    transfer.check_complete()


def test_lost_first_frame_of_a_restarted_reset_is_recovered() -> None:
    """The next one is not taken for the continuation of the reset before."""
    for budget in range(20, 300, 20):
        transfer = Transfer()
        with tight():
            transfer.crowd(8)
            transfer.churn(12)
            transfer.send(245)
            while transfer.under_way:
                transfer.deliver(0)
            transfer.act("untrack", 0)
            transfer.churn(4)
            transfer.send(1)
            transfer.send(budget)
            if transfer.under_way:
                del transfer.under_way[0]
            transfer.end()
        transfer.check_complete()
