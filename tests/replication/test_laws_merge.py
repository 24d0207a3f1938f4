"""Merging is a join of a semilattice, and it does not matter how its deltas are delivered."""

from collections.abc import Iterator
from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.replication.entry import Entry
from adsum.replication.messages import Delta, Sync
from adsum.replication.state import Replica
from tests.support.effort import examples

from .strategies import Action, History, Peer, actions, check_lists, numbers, tight

NAMES = ("a", "b")
#: What is known of each replica, by name: its life, its horizon, its entries.
Content = dict[str, tuple[Replica, int, dict[int, Entry]]]

laws = examples(70)


@pytest.fixture(scope="module", autouse=True)
def _tight() -> Iterator[None]:
    with tight():
        yield


def catch_up(mine: Peer, theirs: Peer, replica: Replica) -> None:
    """Ask for what is missing of a slice, as an engine does, and take in the whole answer."""
    if not mine.hold(replica) or mine.slice(replica).horizon >= theirs.slice(replica).horizon:
        return
    there, here = mine.open(1, theirs.replica), theirs.open(1, mine.replica)
    mine.ask(there, replica)
    [question] = mine.sent()
    assert isinstance(question, Sync)
    assert theirs.exchange.feed(here, question)
    while theirs.exchange.flush_at < float("inf"):
        theirs.exchange.flush(0.0)
        for frame in theirs.sent():
            assert isinstance(frame, Delta)
            mine.exchange.receive(there, frame, 0.0)
            mine.observer.look()
    mine.close(there)
    theirs.close(here)


def merged(mine: Peer, theirs: Peer) -> Peer:
    """What a node knows that knew `mine` and was told all of `theirs`; both stay as they are."""
    mine, theirs = deepcopy(mine), deepcopy(theirs)
    for replica in theirs.told():
        catch_up(mine, theirs, replica)
    return mine


def content(peer: Peer) -> Content:
    return {
        replica.name: (replica, slice.horizon, slice.entries)
        for replica, slice in peer.told().items()
    }


def agree(*peers: Peer) -> None:
    """All know the same, and all list it alike."""
    for peer in peers:
        assert content(peer) == content(peers[0])
        present = [entry for slice in peer.told().values() for entry in slice.entries.values()]
        check_lists(peer.view, present)


@st.composite
def states(draw: st.DrawFn, count: int) -> list[Peer]:
    """What a few nodes know of the same histories, each as far as it was told, in its own pieces.

    A node may know any life of a name. What it was told in pieces has another log and another floor
    than what its owner has.
    """
    lives = [Replica(name, life) for name in NAMES for life in (1, 2)]
    histories = {life: History(life, draw(actions)) for life in lives}
    peers = [Peer(Replica(f"node {number}", 1)) for number in range(count)]
    for peer in peers:
        for life in draw(st.lists(st.sampled_from(lives), unique=True)):
            history, owner = histories[life], Peer(life)
            last = len(history.changes)
            for point in sorted(draw(st.lists(st.integers(0, last), min_size=1, max_size=3))):
                history.write(owner.exchange.own.slice, point)
                catch_up(peer, owner, life)
                if life in peer.told():
                    assert peer.slice(life).entries == history.contents[peer.slice(life).horizon]
    return peers


@laws
@given(states(2))
def test_merge_is_commutative(peers: list[Peer]) -> None:
    a, b = peers
    agree(merged(a, b), merged(b, a))


@laws
@given(states(3))
def test_merge_is_associative(peers: list[Peer]) -> None:
    a, b, c = peers
    agree(merged(merged(a, b), c), merged(a, merged(b, c)))


@laws
@given(states(2))
def test_merge_is_idempotent_and_announces_no_duplicate(peers: list[Peer]) -> None:
    a, b = peers
    agree(a, merged(a, a))
    both = merged(a, b)
    agree(both, merged(both, b), merged(both, a), merged(both, both))


@laws
@given(actions, st.lists(numbers, min_size=1, max_size=4))
def test_relayed_slice_equals_the_slice_of_its_owner(did: list[Action], starts: list[int]) -> None:
    history, teller = History(Replica("a", 1), did), Peer(Replica("a", 1))
    history.write(teller.exchange.own.slice, len(did))
    for number, start in enumerate(starts):
        owner, peer = Peer(history.replica), Peer(Replica("node", number))
        history.write(owner.exchange.own.slice, start % (len(did) + 1))
        catch_up(peer, owner, history.replica)
        catch_up(peer, teller, history.replica)
        assert peer.slice(history.replica).entries == history.now
        teller = peer
