"""A room's cuts: each change in the state or in one diff, merged for the slow, made once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import adsum
from adsum.channels.presence import feed as feeds
from adsum.channels.presence import history, pace, texts
from tests.support.effort import examples
from tests.support.waiting import until

from .feed_scenario import TOPIC, FeedScenario
from .leak_check import run


def play(part: Callable[[FeedScenario], Awaitable[None]], **settings: Any) -> None:
    run(FeedScenario(**settings).play(part))


def test_first_frame_is_presence_state_and_later_ones_are_diffs() -> None:
    async def part(scenario: FeedScenario) -> None:
        scenario.track("a")
        reader = scenario.reader()
        await scenario.rest()
        scenario.track("b")
        await scenario.rest()
        assert reader.events() == ["state", "diff"]
        assert list(reader.presence.state) == ["a", "b"]

    play(part)


def test_changes_before_a_flush_are_in_the_state_and_in_no_diff() -> None:
    async def part(scenario: FeedScenario) -> None:
        first = scenario.reader()
        await scenario.rest()
        scenario.track("a")
        second = scenario.reader()
        scenario.track("b")
        await scenario.rest()
        assert (first.events(), second.events()) == (["state", "diff"], ["state"])
        assert first.presence.state == second.presence.state == scenario.presence.list(TOPIC)

    play(part)


def test_unobserved_changes_are_in_the_state_and_in_no_diff() -> None:
    async def part(scenario: FeedScenario) -> None:
        reader = scenario.reader()
        scenario.track("a")
        scenario.feed.flush_presences()  # in the same turn
        await scenario.rest()
        assert reader.events() == ["state"]
        assert reader.presence.state == scenario.presence.list(TOPIC)

    play(part)


def test_missed_diffs_are_merged_for_a_slow_consumer() -> None:
    async def part(scenario: FeedScenario) -> None:
        slow, quick = scenario.reader(), scenario.reader()
        await scenario.rest()
        slow.gone = True  # which makes `rest` pass it by
        me = scenario.track("a", {"n": 0})
        for n in range(1, 6):
            await scenario.rest()
            me.update({"n": n})
        await scenario.rest()
        assert slow.read_all() == 1
        assert (slow.events(), quick.events()) == (["state", "diff"], ["state", *["diff"] * 6])
        (meta,) = slow.frames[-1][4]["joins"]["a"]["metas"]
        assert (meta["n"], slow.frames[-1][4]["leaves"]) == (5, {})
        assert "phx_ref_prev" in meta

    play(part)


def test_join_and_leave_between_reads_make_no_frame() -> None:
    async def part(scenario: FeedScenario) -> None:
        slow = scenario.reader()
        await scenario.rest()
        slow.gone = True
        scenario.track("a").untrack()
        await scenario.rest()
        me = scenario.track("b")
        await scenario.rest()
        me.untrack()
        await scenario.rest()
        slow.read_all()
        assert slow.events() == ["state"]

    play(part)


def test_late_state_is_followed_by_the_changes_since_its_flush() -> None:
    async def part(scenario: FeedScenario) -> None:
        slow = scenario.reader()
        scenario.feed.flush_presences()  # the state is cut, and not read
        slow.gone = True
        for n in range(3):
            scenario.track(f"u{n}")
            await scenario.rest()
        slow.read_all()
        assert slow.events() == ["state", "diff"]
        assert slow.frames[0][4] == {}
        assert slow.presence.state == scenario.presence.list(TOPIC)

    play(part)


def test_change_storm_is_batched_into_few_diffs_and_the_first_is_immediate() -> None:
    async def part(scenario: FeedScenario) -> None:
        reader = scenario.reader()
        await scenario.rest()
        began = asyncio.get_running_loop().time()
        while scenario.presence.count(TOPIC) < 2000:
            scenario.track(f"u{scenario.presence.count(TOPIC)}")
            await asyncio.sleep(0)
        took = asyncio.get_running_loop().time() - began
        await until(lambda: reader.read_all() or len(reader.presence.refs()) == 2000)
        # A diff in each pause at most, however long the storm took.
        assert scenario.feed.number <= 3 + took / pace.PAUSE
        await scenario.rest()
        assert reader.presence.state == scenario.presence.list(TOPIC)

    play(part)


def test_states_and_diffs_are_encoded_once_for_all_followers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = {"states": 0, "diffs": 0}

    def state_text(*arguments: Any) -> str:
        made["states"] += 1
        return texts.state_text(*arguments)

    def diff_text(*arguments: Any) -> str | None:
        made["diffs"] += 1
        return texts.diff_text(*arguments)

    monkeypatch.setattr(feeds, "state_text", state_text)
    monkeypatch.setattr(history, "diff_text", diff_text)

    async def part(scenario: FeedScenario) -> None:
        for _ in range(50):
            scenario.reader()
        await scenario.rest()
        assert made == {"states": 1, "diffs": 0}
        scenario.track("a")
        await scenario.rest()
        assert made == {"states": 1, "diffs": 1}
        scenario.reader()  # after the change there has to be a new state
        await scenario.rest()
        scenario.reader()  # and nothing changed since
        await scenario.rest()
        assert made == {"states": 2, "diffs": 1}
        for reader in scenario.readers[:20]:
            reader.gone = True
        for key in "b", "c":
            scenario.track(key)
            await scenario.rest()
        for reader in scenario.readers[:20]:
            reader.read_all()
        # Two for those who kept up, and one, of both, for all who did not.
        assert made == {"states": 2, "diffs": 4}
        for reader in scenario.readers:
            assert reader.presence.state == scenario.presence.list(TOPIC)

    play(part)


def test_left_follower_is_sent_nothing() -> None:
    async def part(scenario: FeedScenario) -> None:
        reader = scenario.reader()
        await scenario.rest()
        scenario.track("a")
        scenario.cut()
        assert reader.marked
        scenario.feed.leave(reader.follower)
        scenario.feed.leave(reader.follower)
        reader.read_all()
        assert reader.events() == ["state"]
        assert scenario.feed.followers == 0
        assert scenario.feed.empty

    play(part)


@pytest.mark.parametrize("state_if_slow", [True, False])
def test_slow_consumer_beyond_history_gets_a_state_or_is_closed(
    state_if_slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "REMEMBERED", 5)

    async def part(scenario: FeedScenario) -> None:
        slow = scenario.reader()
        await scenario.rest()
        slow.gone = True
        me = scenario.track("a", {"n": 0})
        for n in range(10):
            await scenario.rest()
            me.update({"n": n})
        await scenario.rest()
        slow.gone = False
        await scenario.rest()
        if state_if_slow:
            assert slow.events() == ["state", "state"]
            assert slow.presence.state == scenario.presence.list(TOPIC)
        else:
            assert slow.gone
            assert slow.events() == ["state"]
        assert len(scenario.feed._history._diffs) <= 5

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

    def __init__(self, scenario: FeedScenario) -> None:
        self.scenario = scenario
        self.tracked: list[adsum.Tracked] = []
        self.serial = 0

    async def step(self, what: str, which: Any) -> None:
        readers = [reader for reader in self.scenario.readers if not reader.gone]
        self.serial += 1
        match what:
            case "track":
                made = self.scenario.presence.track(TOPIC, which, owner=self.serial)
                self.tracked.append(made)
            case "update" if self.tracked:
                self.tracked[which % len(self.tracked)].update({"n": self.serial})
            case "untrack" if self.tracked:
                self.tracked.pop(which % len(self.tracked)).untrack()
            case "enter":
                self.scenario.reader()
            case "leave" if readers:
                reader = readers[which % len(readers)]
                self.scenario.feed.leave(reader.follower)
                reader.gone = True
            case "read" if readers:
                readers[which % len(readers)].read()
            case "cut":
                self.scenario.feed.flush_presences()
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
def test_followers_of_any_speed_converge_and_see_each_ref_once(
    steps: list[tuple[str, Any]], state_if_slow: bool, fetches: bool, counts_above: int | None
) -> None:
    async def part(scenario: FeedScenario) -> None:
        crowd = Crowd(scenario)
        for step in steps:
            await crowd.step(*step)
        await scenario.rest()
        expected = await scenario.presence.fetch(TOPIC)
        refs = {meta["phx_ref"] for entry in expected.values() for meta in entry["metas"]}
        for reader in scenario.readers:
            if reader.gone:
                continue
            if scenario.feed.counting:
                count = {"count": scenario.presence.count(TOPIC)}
                assert reader.frames[-1][3:] == ["presence_count", count]
            else:
                # That none is announced or withdrawn twice, `Presence` has checked.
                assert _plain(reader.presence.state) == _plain(expected)
                assert reader.presence.joined - reader.presence.left == refs
        assert scenario.feed.followers == sum(not reader.gone for reader in scenario.readers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "REMEMBERED", 4)
        fetch = names_fetched if fetches else None
        play(part, state_if_slow=state_if_slow, fetch=fetch, counts_above=counts_above)
