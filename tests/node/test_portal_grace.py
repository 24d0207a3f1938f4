"""Presences of threads with a linger: broken by an exception or by `lost`, and taken over."""

from collections.abc import Iterator
from typing import Any

import pytest

import adsum
from adsum.errors import ConfigurationError, UsageError


class LostError(Exception):
    """A connection was lost."""


@pytest.fixture
def portal() -> Iterator[adsum.Portal]:
    with adsum.Portal(adsum.Node(siblings=False)) as portal:
        yield portal


def lose(portal: adsum.Portal, **options: Any) -> adsum.PortalTracked:
    """Track a presence in a block that an exception ends."""
    with pytest.raises(LostError), portal.track("room", "ann", linger=60.0, **options) as tracked:
        raise LostError
    return tracked


def test_exception_in_the_block_of_a_thread_breaks_and_a_normal_end_does_not(
    portal: adsum.Portal,
) -> None:
    with portal.track("room", "bob", linger=60.0):
        pass
    tracked = lose(portal)
    assert not tracked.active
    assert list(portal.list("room")) == ["ann"]
    tracked.untrack()
    assert portal.list("room") == {}


def test_next_handle_of_a_key_takes_over(portal: adsum.Portal) -> None:
    old = lose(portal)
    new = portal.track("room", "ann", {"n": 2})
    old.untrack()
    assert new.active
    assert [meta["n"] for meta in portal.get("room", "ann")] == [2]
    assert portal.call(portal.node.stats)["lingering_presences"] == 0


def test_handle_does_not_take_over_from_an_owner_that_can_return(portal: adsum.Portal) -> None:
    lose(portal, owner="session")
    portal.track("room", "ann")
    assert len(portal.get("room", "ann")) == 2


def test_lost_owner_of_a_thread_returns(portal: adsum.Portal) -> None:
    portal.track("room", "ann", {"n": 1}, owner="session", linger=60.0)
    assert portal.lost("session") == 1
    assert portal.count("room") == 1
    portal.track("room", "ann", {"n": 2}, owner="session")
    assert [meta["n"] for meta in portal.get("room", "ann")] == [2]
    assert portal.untrack_all("session") == 1


def test_wrong_arguments_are_refused_before_the_call(portal: adsum.Portal) -> None:
    with pytest.raises(ConfigurationError, match=r"linger=3601: .* from 0 to 3600"):
        portal.track("room", "ann", linger=3601)
    with pytest.raises(UsageError):
        portal.lost(adsum.CURRENT_TASK)
    assert portal.topics() == []
