"""How a slice travels: half of a catch-up is never shown, and a stream below the floor restarts."""

import pytest

from adsum.replication.entry import ID, VERSION, Entry, size_of
from adsum.replication.limits import DELTA_BUDGET
from adsum.replication.messages import Delta, Sync
from adsum.replication.state import SPARE_HISTORY, Replica, Slice
from adsum.replication.streams import SliceFeed, Staging, cut
from adsum.replication.view import View
from adsum.replication.visibility import Visibility
from tests.replication.strategies import Peer

ME = Replica("me", 1)
BIG = '{"pad":"' + "x" * 1000 + '"}'


def put(slice: Slice, id: int | None = None, key: str | None = None) -> Entry:
    version = slice.horizon + 1
    id = id or version
    entry = (version, id, "room", key or f"k{id}", BIG, None, *ME)
    slice.put(entry)
    return entry


def end(slice: Slice, entry: Entry) -> None:
    slice.remove((slice.horizon + 1, entry[ID]))


def large(count: int = 300) -> Slice:
    slice = Slice(ME)
    for _ in range(count):
        put(slice)
    return slice


def frames(slice: Slice, feed: SliceFeed) -> list[Delta]:
    """What a feed sends until it has caught up."""
    sent = []
    while feed.owed or feed.cursor < slice.horizon:
        cursor, reset = feed.position(slice)
        sent.append(cut(slice, cursor, reset))
        feed.advance(sent[-1])
    return sent


def versions(slice: Slice) -> dict[int, int]:
    return {id: entry[VERSION] for id, entry in slice.entries.items()}


def shown(view: View) -> dict[int, int]:
    return {e[ID]: e[VERSION] for topic in view.topics.values() for e in topic}


def take(current: Slice, sent: list[Delta], view: View | None) -> Slice:
    staging = Staging(current, sent[0])
    for frame in sent:
        assert staging.add(frame)
    return install(staging, view)


def install(staging: Staging, view: View | None) -> Slice:
    return staging.install(Visibility(view or View()), shown=view is not None)


def test_catch_up_of_a_large_slice_is_framed_and_its_end_is_marked() -> None:
    sent = frames(large(), SliceFeed(0, follow=True))
    assert len(sent) > 3
    assert [frame.last for frame in sent] == [False] * (len(sent) - 1) + [True]
    for frame in sent:
        assert sum(map(size_of, frame.changes)) < DELTA_BUDGET + 2000
    assert [frame.after for frame in sent[1:]] == [frame.upto for frame in sent[:-1]]


def test_catch_up_has_no_effect_before_its_last_frame() -> None:
    source, current, view = large(), Slice(ME), View()
    sent = frames(source, SliceFeed(0, follow=True))
    staging = Staging(current, sent[0])
    for frame in sent[:-1]:
        staging.add(frame)
    assert (current.entries, current.horizon, shown(view)) == ({}, 0, {})
    staging.add(sent[-1])
    assert versions(install(staging, view)) == versions(source) == shown(view)


def test_changes_during_catch_up_converge() -> None:
    source, feed, sent = large(), SliceFeed(0, follow=True), list[Delta]()
    for _ in range(2):
        sent.append(cut(source, *feed.position(source)))
        feed.advance(sent[-1])
    early = sorted(source.entries)[:2]
    put(source, id=early[0])
    source.remove((source.horizon + 1, early[1]))
    put(source)
    sent += frames(source, feed)
    view = View()
    assert versions(take(Slice(ME), sent, view)) == versions(source) == shown(view)


def test_out_of_order_catch_up_frames_are_rejected_and_change_nothing() -> None:
    sent = frames(large(), SliceFeed(0, follow=True))
    staging = Staging(Slice(ME), sent[0])
    assert staging.add(sent[0])
    assert not staging.add(sent[2])
    assert staging.horizon == sent[0].upto


def test_duplicate_catch_up_frame_is_harmless() -> None:
    source = large()
    sent = frames(source, SliceFeed(0, follow=True))
    staging = Staging(Slice(ME), sent[0])
    for frame in sent:
        staging.add(frame)
        staging.add(frame)
    assert versions(install(staging, None)) == versions(source)


def test_catch_up_over_known_entries_announces_only_changes() -> None:
    source, view = large(), View()
    current = take(Slice(ME), frames(source, SliceFeed(0, follow=True)), view)
    known = current.horizon
    put(source, id=1)
    source.remove((source.horizon + 1, 2))
    for _ in range(200):
        put(source)
    view.watch("room")
    sent = frames(source, SliceFeed(known, follow=True))
    assert len(sent) > 1
    after = take(current, sent, view)
    assert versions(after) == versions(source) == shown(view)
    told = view.take_changes()["room"]
    assert sum(old is None for old, new in told) == 200
    assert sum(new is None for old, new in told) == 1
    assert sum(old is not None and new is not None for old, new in told) == 1


def churned(slice: Slice) -> None:
    """Forget removals: what a peer missed meanwhile it cannot be told any more."""
    while slice.floor <= 310:
        end(slice, put(slice))


def test_tombstone_below_floor_forces_reset_that_announces_only_changes() -> None:
    source, view = large(), View()
    current = take(Slice(ME), frames(source, SliceFeed(0, follow=True)), view)
    kept = dict(current.entries)
    source.remove((source.horizon + 1, 5))
    churned(source)
    assert current.horizon < source.floor
    view.watch("room")
    sent = frames(source, SliceFeed(current.horizon, follow=True))
    assert {bool(frame.reset) for frame in sent} == {True}
    after = take(current, sent, view)
    assert versions(after) == versions(source) == shown(view)
    assert after.floor == after.horizon
    assert view.take_changes() == {"room": [(kept[5], None)]}


def test_reset_keeps_no_second_copy_of_unchanged_entries() -> None:
    source = large()
    current = take(Slice(ME), frames(source, SliceFeed(0, follow=True)), None)
    known = dict(current.entries)
    churned(source)
    after = take(current, frames(source, SliceFeed(current.horizon, follow=True)), None)
    assert [entry for id, entry in known.items() if after.entries[id] is not entry] == []


def test_floor_that_overtakes_a_catch_up_restarts_it_as_reset() -> None:
    source, feed = large(), SliceFeed(0, follow=True)
    first = cut(source, *feed.position(source))
    feed.advance(first)
    churned(source)
    sent = frames(source, feed)
    assert (sent[0].after, sent[0].reset) == (0, source.horizon)
    view = View()
    staging = Staging(Slice(ME), first)
    staging.add(first)
    assert not staging.add(sent[0])
    assert versions(take(Slice(ME), sent, view)) == versions(source) == shown(view)


def test_floor_that_overtakes_a_reset_restarts_it() -> None:
    source, feed = large(), SliceFeed(1, follow=True)
    churned(source)
    feed.advance(cut(source, *feed.position(source)))
    before = source.floor
    while source.floor <= max(feed.reset, before):
        end(source, put(source))
    assert feed.position(source)[0] == 0
    assert versions(take(Slice(ME), frames(source, feed), None)) == versions(source)


def test_restarted_reset_is_not_taken_for_a_continuation() -> None:
    source, feed = large(600), SliceFeed(1, follow=True)
    churned(source)
    first = cut(source, *feed.position(source))
    feed.advance(first)
    staging = Staging(Slice(ME), first)
    assert staging.add(first)
    began = feed.reset
    for id in sorted(source.entries)[:100]:
        source.remove((source.horizon + 1, id))
    while source.floor <= max(began, first.upto):
        end(source, put(source))
    again = frames(source, feed)
    assert (again[0].after, again[0].reset) == (0, source.horizon)
    assert not staging.add(again[0])
    assert versions(take(Slice(ME), again, None)) == versions(source)


def test_stale_catch_up_is_discarded() -> None:
    source = large()
    stale = frames(source, SliceFeed(0, follow=True))
    current = take(Slice(ME), stale, None)
    newer = put(source, id=1)
    current.apply([newer], newer[VERSION])
    after = take(current, stale, None)
    assert after is current
    assert versions(after) == versions(source)


def test_fetch_without_follow_ends_with_its_answer() -> None:
    source, feed = large(3), SliceFeed(0, follow=False)
    assert feed.advance(cut(source, 0, reset=0))


def test_fetch_that_finds_nothing_new_is_answered() -> None:
    source = large(3)
    [answer] = frames(source, SliceFeed(3, follow=True))
    assert (answer.after, answer.upto, answer.changes, answer.last) == (3, 3, (), True)


@pytest.mark.parametrize("count", [1, 2 * SPARE_HISTORY])
def test_followers_at_one_version_share_an_encoded_message(count: int) -> None:
    source = large(count)
    assert SliceFeed(0, follow=True).position(source) == SliceFeed(0, follow=False).position(source)


def test_dropped_slice_is_not_sent() -> None:
    owner, peer = Replica("owner", 1), Peer(Replica("peer", 1))
    link = peer.open(1, Replica("other", 1))
    peer.hold(owner)
    peer.exchange.feed(link, Sync(owner, 0, follow=True))
    peer.exchange.drop(owner)
    peer.exchange.flush(0.0)
    assert peer.sent() == []
