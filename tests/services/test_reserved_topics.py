"""Services are hidden from applications: their topics are reserved, for every call."""

from collections.abc import Callable
from typing import Any

import pytest

import adsum
from adsum.channels import Channel, Socket
from adsum.testing import Browser, MakeCluster, RefusedByServerError
from adsum.values.names import RESERVED
from tests.support.nodes import run

from .crew import NAME, Crew

TOPIC = f"{RESERVED}services/{NAME}"


def test_services_are_in_no_list_of_topics(cluster: MakeCluster) -> None:
    crew = Crew(cluster(2))
    one = crew.cluster[1].presence
    watch = one.watch_topics()
    crew.register_each()
    one.track("room", "ann", owner=None)
    assert one.topics() == ["room"]
    assert one.topics(RESERVED) == []
    one.node.driver.notify_observers()
    assert watch._has_more()
    assert watch._take().topic == "room"
    assert not watch._has_more()
    assert not one.watch_topics(TOPIC)._has_more()


@pytest.mark.parametrize(
    "call",
    [
        lambda p: p.track(TOPIC, "ann", owner=None),
        lambda p: p.update(TOPIC, "ann", {}, owner=None),
        lambda p: p.untrack(TOPIC, "ann", owner=None),
        lambda p: p.list(TOPIC),
        lambda p: p.get(TOPIC, "ann"),
        lambda p: p.count(TOPIC),
        lambda p: p.watch(TOPIC),
    ],
)
def test_reserved_topic_is_refused_by_presences(
    cluster: MakeCluster, call: Callable[[adsum.Presence], Any]
) -> None:
    crew = Crew(cluster(1))
    crew.register_each()
    with pytest.raises(ValueError, match="must not begin with NUL, which adsum reserves"):
        call(crew.cluster[0].presence)


class Anything(Channel, topic="{anything}"):
    """A channel for every topic, which shows its presences."""

    async def join(self, payload: Any) -> None:
        self.follow()


def test_clients_cannot_join_a_reserved_topic() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        services, socket = adsum.Services(node), Socket(adsum.Presence(node), [Anything])
        async with node, services.register(NAME, "one:80"), Browser(socket) as browser:
            assert await (await browser.join("anything")).presence() == {}
            with pytest.raises(RefusedByServerError, match="unmatched topic"):
                await browser.join(TOPIC)

    run(main())


@pytest.mark.parametrize(
    "call",
    [
        lambda p: p.track(TOPIC, "ann"),
        lambda p: p.list(TOPIC),
        lambda p: p.get(TOPIC, "ann"),
        lambda p: p.count(TOPIC),
        lambda p: p.fetch(TOPIC),
        lambda p: p.watch(TOPIC),
        lambda p: p.subscribe(TOPIC),
    ],
)
def test_reserved_topic_is_refused_by_a_portal(call: Callable[[adsum.Portal], Any]) -> None:
    with (
        adsum.Portal(adsum.Node(siblings=False)) as portal,
        pytest.raises(ValueError, match="must not begin with NUL"),
    ):
        call(portal)
