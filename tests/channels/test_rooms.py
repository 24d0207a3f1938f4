"""A room's cuts: each change in the state or in one diff, merged for the slow, made once."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import adsum
from adsum.channels.presence import feed as feeds
from adsum.channels.presence import history, pace, texts
from adsum.channels.presence.feed import Follower, PresenceFeed
from adsum.channels.wire.frames import V2, Ref, Serializer
from adsum.driver.observer import Observer
from adsum.replication.entry import Transition
from tests.effort import examples
from tests.support.waiting import until

from .phoenix import Presence
from .running import run

TOPIC = "room"


class Stage(Observer):
    """A room of a node that runs, and what the node tells it."""

    def __init__(
        self,
        *,
        state_if_slow: bool = True,
        fetch: Any = None,
        counts_above: int | None = None,
    ) -> None:
        self.node = adsum.Node(siblings=False)
        self.presence = adsum.Presence(self.node, fetch=fetch)
        self._state_if_slow = state_if_slow
        self._counts_above = counts_above
        self.feed: PresenceFeed
        self.readers: list[Reader] = []

    async def play(self, part: Callable[["Stage"], Awaitable[None]]) -> None:
        """Run something while the node runs."""
        async with self.node:
            self.feed = PresenceFeed(TOPIC, self.presence, self._counts_above, self._state_if_slow)
            self.node.driver.engine.view.watch(TOPIC)
            self.node.observe(self)
            await part(self)
            self.feed.close()

    def reader(self) -> "Reader":
        """Somebody new who follows the room."""
        made = Reader(f"{len(self.readers)}")
        made.follower = self.feed.enter(made)
        self.readers.append(made)
        return made

    def track(self, key: str, meta: dict[str, Any] | None = None) -> adsum.presence.Tracked:
        return self.presence.track(TOPIC, key, meta, owner=None)

    def cut(self) -> None:
        """Cut what there is, if nothing is being fetched."""
        self.node.driver.notify_observers()
        self.feed.flush_presences()

    async def rest(self) -> None:
        """Let everything be cut, and everybody read, until there is nothing more."""
        quiet = 0
        while quiet < 5:
            self.cut()
            await asyncio.sleep(0)
            read = sum([reader.read_all() for reader in self.readers if not reader.gone])
            busy = read or self.feed._pace._timer is not None or self.feed._cutting is not None
            quiet = 0 if busy else quiet + 1

    # As an observer of the node.

    def changed(self, topic: str, transitions: list[Transition]) -> None:
        if topic == TOPIC:
            self.feed.changed(transitions)


class Reader:
    """A client's channel, which reads when the test says so; it checks what it reads."""

    follower: Follower

    def __init__(self, join_ref: str) -> None:
        self.topic = TOPIC
        self.join_ref: Ref = join_ref
        self.serializer: Serializer = V2
        self.presence = Presence(join_ref)
        self.frames: list[Any] = []
        #: Whether it is to ask for a frame.
        self.marked = False
        #: Whether it follows no more, by itself or because it was too slow.
        self.gone = False
        self.longest_state: int | None = None

    def too_long(self, size: int) -> None:
        raise AssertionError(f"{size} characters are too long for nobody here")

    def ready(self, follower: Follower) -> None:
        assert not self.marked, "it is told twice before it reads"
        self.marked = True

    def too_slow(self) -> None:
        self.gone = True
        self.follower.feed.leave(self.follower)

    def read(self) -> bool:
        """Take a frame, if there is one; whether there may be."""
        marked, self.marked = self.marked, False
        frame = self.follower.frame() if marked else None
        if frame is not None:
            assert isinstance(frame, str)
            self.frames.append(json.loads(frame))
            self.presence.take(self.frames[-1])
        return marked

    def read_all(self) -> int:
        count = 0
        while self.read():
            count += 1
        return count

    def events(self) -> list[str]:
        return [frame[3].removeprefix("presence_") for frame in self.frames]


def play(part: Callable[[Stage], Awaitable[None]], **settings: Any) -> None:
    run(Stage(**settings).play(part))


def test_the_first_frame_is_the_state_and_each_later_one_a_diff() -> None:
    async def part(stage: Stage) -> None:
        stage.track("a")
        reader = stage.reader()
        await stage.rest()
        stage.track("b")
        await stage.rest()
        assert reader.events() == ["state", "diff"]
        assert list(reader.presence.state) == ["a", "b"]

    play(part)


def test_what_changes_before_a_cut_is_in_the_state_and_in_no_diff() -> None:
    async def part(stage: Stage) -> None:
        first = stage.reader()
        await stage.rest()
        stage.track("a")
        second = stage.reader()
        stage.track("b")
        await stage.rest()
        assert (first.events(), second.events()) == (["state", "diff"], ["state"])
        assert first.presence.state == second.presence.state == stage.presence.list(TOPIC)

    play(part)


def test_what_the_node_has_not_told_of_yet_is_in_the_state_and_in_no_diff() -> None:
    async def part(stage: Stage) -> None:
        reader = stage.reader()
        stage.track("a")
        stage.feed.flush_presences()  # in the same turn
        await stage.rest()
        assert reader.events() == ["state"]
        assert reader.presence.state == stage.presence.list(TOPIC)

    play(part)


def test_diffs_that_a_reader_missed_come_as_one() -> None:
    async def part(stage: Stage) -> None:
        slow, quick = stage.reader(), stage.reader()
        await stage.rest()
        slow.gone = True  # which makes `rest` pass it by
        me = stage.track("a", {"n": 0})
        for n in range(1, 6):
            await stage.rest()
            me.update({"n": n})
        await stage.rest()
        assert slow.read_all() == 1
        assert (slow.events(), quick.events()) == (["state", "diff"], ["state", *["diff"] * 6])
        (meta,) = slow.frames[-1][4]["joins"]["a"]["metas"]
        assert (meta["n"], slow.frames[-1][4]["leaves"]) == (5, {})
        assert "phx_ref_prev" in meta

    play(part)


def test_what_came_and_went_unseen_makes_no_frame() -> None:
    async def part(stage: Stage) -> None:
        slow = stage.reader()
        await stage.rest()
        slow.gone = True
        stage.track("a").untrack()
        await stage.rest()
        me = stage.track("b")
        await stage.rest()
        me.untrack()
        await stage.rest()
        slow.read_all()
        assert slow.events() == ["state"]

    play(part)


def test_a_reader_that_was_sent_a_late_state_gets_what_changed_since_its_cut() -> None:
    async def part(stage: Stage) -> None:
        slow = stage.reader()
        stage.feed.flush_presences()  # the state is cut, and not read
        slow.gone = True
        for n in range(3):
            stage.track(f"u{n}")
            await stage.rest()
        slow.read_all()
        assert slow.events() == ["state", "diff"]
        assert slow.frames[0][4] == {}
        assert slow.presence.state == stage.presence.list(TOPIC)

    play(part)


def test_a_storm_of_changes_is_cut_into_few_diffs_and_the_first_at_once() -> None:
    async def part(stage: Stage) -> None:
        reader = stage.reader()
        await stage.rest()
        began = asyncio.get_running_loop().time()
        while stage.presence.count(TOPIC) < 2000:
            stage.track(f"u{stage.presence.count(TOPIC)}")
            await asyncio.sleep(0)
        took = asyncio.get_running_loop().time() - began
        await until(lambda: reader.read_all() or len(reader.presence.refs()) == 2000)
        # A diff in each pause at most, however long the storm took.
        assert stage.feed.number <= 3 + took / pace.PAUSE
        await stage.rest()
        assert reader.presence.state == stage.presence.list(TOPIC)

    play(part)


def test_states_and_diffs_are_made_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"states": 0, "diffs": 0}

    def state_text(*arguments: Any) -> str:
        made["states"] += 1
        return texts.state_text(*arguments)

    def diff_text(*arguments: Any) -> str | None:
        made["diffs"] += 1
        return texts.diff_text(*arguments)

    monkeypatch.setattr(feeds, "state_text", state_text)
    monkeypatch.setattr(history, "diff_text", diff_text)

    async def part(stage: Stage) -> None:
        for _ in range(50):
            stage.reader()
        await stage.rest()
        assert made == {"states": 1, "diffs": 0}
        stage.track("a")
        await stage.rest()
        assert made == {"states": 1, "diffs": 1}
        stage.reader()  # after the change there has to be a new state
        await stage.rest()
        stage.reader()  # and nothing changed since
        await stage.rest()
        assert made == {"states": 2, "diffs": 1}
        for reader in stage.readers[:20]:
            reader.gone = True
        for key in "b", "c":
            stage.track(key)
            await stage.rest()
        for reader in stage.readers[:20]:
            reader.read_all()
        # Two for those who kept up, and one, of both, for all who did not.
        assert made == {"states": 2, "diffs": 4}
        for reader in stage.readers:
            assert reader.presence.state == stage.presence.list(TOPIC)

    play(part)


def test_who_has_left_is_sent_nothing_even_if_its_turn_comes() -> None:
    async def part(stage: Stage) -> None:
        reader = stage.reader()
        await stage.rest()
        stage.track("a")
        stage.cut()
        assert reader.marked
        stage.feed.leave(reader.follower)
        stage.feed.leave(reader.follower)
        reader.read_all()
        assert reader.events() == ["state"]
        assert stage.feed.followers == 0
        assert stage.feed.empty

    play(part)


@pytest.mark.parametrize("state_if_slow", [True, False])
def test_who_missed_more_than_is_remembered_gets_a_state_or_is_told_to_go(
    state_if_slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "REMEMBERED", 5)

    async def part(stage: Stage) -> None:
        slow = stage.reader()
        await stage.rest()
        slow.gone = True
        me = stage.track("a", {"n": 0})
        for n in range(10):
            await stage.rest()
            me.update({"n": n})
        await stage.rest()
        slow.gone = False
        await stage.rest()
        if state_if_slow:
            assert slow.events() == ["state", "state"]
            assert slow.presence.state == stage.presence.list(TOPIC)
        else:
            assert slow.gone
            assert slow.events() == ["state"]
        assert len(stage.feed._history._diffs) <= 5

    play(part, state_if_slow=state_if_slow)


KEYS = st.sampled_from(["a", "b", "c"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("track"), KEYS),
        st.tuples(st.just("update"), st.integers(0, 9)),
        st.tuples(st.just("untrack"), st.integers(0, 9)),
        st.tuples(st.just("enter"), st.just(0)),
        st.tuples(st.just("leave"), st.integers(0, 9)),
        st.tuples(st.just("read"), st.integers(0, 9)),
        st.tuples(st.just("cut"), st.just(0)),
        st.tuples(st.just("turn"), st.just(0)),
    ),
    min_size=10,
    max_size=80,
)


class Crowd:
    """Random changes, and readers that come, read and go at random."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.tracked: list[adsum.presence.Tracked] = []
        self.serial = 0

    async def step(self, what: str, which: Any) -> None:
        readers = [reader for reader in self.stage.readers if not reader.gone]
        self.serial += 1
        match what:
            case "track":
                made = self.stage.presence.track(TOPIC, which, owner=self.serial)
                self.tracked.append(made)
            case "update" if self.tracked:
                self.tracked[which % len(self.tracked)].update({"n": self.serial})
            case "untrack" if self.tracked:
                self.tracked.pop(which % len(self.tracked)).untrack()
            case "enter":
                self.stage.reader()
            case "leave" if readers:
                reader = readers[which % len(readers)]
                self.stage.feed.leave(reader.follower)
                reader.gone = True
            case "read" if readers:
                readers[which % len(readers)].read()
            case "cut":
                self.stage.feed.flush_presences()
            case "turn":
                await asyncio.sleep(0)


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """Without what depends on the reader: which ref it knew before."""
    return {
        key: {
            **entry,
            "metas": [
                {name: value for name, value in meta.items() if name != "phx_ref_prev"}
                for meta in entry["metas"]
            ],
        }
        for key, entry in state.items()
    }


async def names_fetched(topic: str, entries: dict[str, Any]) -> dict[str, Any]:
    for _ in range(3):
        await asyncio.sleep(0)
    return {key: {"name": key.upper()} for key in entries}


@examples(100)
@given(STEPS, st.booleans(), st.booleans(), st.sampled_from([None, 2]))
def test_whoever_reads_whenever_knows_who_is_there_and_each_ref_comes_and_goes_once(
    steps: list[tuple[str, Any]], state_if_slow: bool, fetches: bool, counts_above: int | None
) -> None:
    async def part(stage: Stage) -> None:
        crowd = Crowd(stage)
        for step in steps:
            await crowd.step(*step)
        await stage.rest()
        expected = await stage.presence.fetch(TOPIC)
        refs = {meta["phx_ref"] for entry in expected.values() for meta in entry["metas"]}
        for reader in stage.readers:
            if reader.gone:
                continue
            if stage.feed.counting:
                count = {"count": stage.presence.count(TOPIC)}
                assert reader.frames[-1][3:] == ["presence_count", count]
            else:
                # That none is announced or withdrawn twice, `Presence` has checked.
                assert _plain(reader.presence.state) == _plain(expected)
                assert reader.presence.joined - reader.presence.left == refs
        assert stage.feed.followers == sum(not reader.gone for reader in stage.readers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "REMEMBERED", 4)
        fetch = names_fetched if fetches else None
        play(part, state_if_slow=state_if_slow, fetch=fetch, counts_above=counts_above)
