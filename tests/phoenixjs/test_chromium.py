"""phoenix.js in a browser: a page that a server of the site serves, in tabs of Chromium."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from tests.support.phoenixjs_library import phoenix_directory
from tests.support.waiting import until

from .chromium_clients import ChromiumClients
from .scenario import ROOM, is_refused, joined_times, received, run
from .site_cluster import SiteCluster

pytestmark = pytest.mark.processes

BOTH = {name: [{"of": name}] for name in ("ann", "bob")}


def show(
    scenario: Callable[[SiteCluster, ChromiumClients], Coroutine[Any, Any, None]],
    host: str = "127.0.0.1",
    **options: Any,
) -> None:
    """Let a scenario play in tabs; the consoles have to stay empty, but for failed connections."""
    tabs = ChromiumClients(host)

    async def play(site: SiteCluster) -> None:
        await scenario(site, tabs)
        assert tabs.complaints == []

    run(play, clients=tabs, library=str(phoenix_directory()), **options)


async def two_tabs(site: SiteCluster, **how: Any) -> None:
    """Ann and Bob in one room, each in a tab of their own."""
    for name in BOTH:
        await site.connect(name, name, **how)
        await site.join(name, ROOM, {"of": name})
    await site.agree(ROOM, BOTH)


def test_pages_on_two_nodes_see_joins_updates_and_leaves() -> None:
    async def scenario(site: SiteCluster, tabs: ChromiumClients) -> None:
        for name, node in (("ann", "n1"), ("bob", "n2")):
            await site.connect(name, name, node)
            joined = await site.join(name, ROOM, {"of": name})
            assert joined["response"]["node"] == node
        await site.agree(ROOM, BOTH)
        await tabs.ask("update", client="ann", topic=ROOM, meta={"of": "ann", "away": True})
        await site.agree(ROOM, {**BOTH, "ann": [{"of": "ann", "away": True}]})
        await tabs.ask("push", client="bob", topic=ROOM, event="shout", payload={"text": "hi"})
        await until(partial(received, site, "ann", [["shout", {"text": "hi"}]]), "ann hears")
        await tabs.ask("leave", client="ann", topic=ROOM)
        await site.agree(ROOM, {"bob": BOTH["bob"]})

    show(scenario)


@pytest.mark.parametrize("transport", ["websocket", "longpoll"])
def test_page_reconnects_to_another_node_after_a_crash(transport: str) -> None:
    async def scenario(site: SiteCluster, tabs: ChromiumClients) -> None:
        await two_tabs(site, transport=transport)
        await site.kill("n1")
        await site.agree(ROOM, BOTH)
        await site.start("n1")
        await site.kill("n2")
        await site.agree(ROOM, BOTH)

    show(scenario)


def test_blocked_websocket_falls_back_to_longpoll_and_is_remembered() -> None:
    async def scenario(site: SiteCluster, tabs: ChromiumClients) -> None:
        site.balancer.upgrades = False
        await two_tabs(site, longPollFallbackMs=500)
        looks = await site.look()
        assert [look["transport"] for look in looks.values()] == ["LongPoll"] * 2
        refused = site.balancer.refused
        await tabs.ask("disconnect", client="ann")
        await tabs.ask("reconnect", client="ann")
        await until(partial(joined_times, site, "ann", 2), "ann is back")
        assert site.balancer.refused == refused

    show(scenario, keep_alive=False)


@pytest.mark.parametrize("transport", ["websocket", "longpoll"])
def test_closed_tab_leaves(transport: str) -> None:
    async def scenario(site: SiteCluster, tabs: ChromiumClients) -> None:
        await two_tabs(site, transport=transport)
        await tabs.close("ann")
        await site.agree(ROOM, {"bob": BOTH["bob"]})

    show(scenario)


def test_page_that_is_loaded_again_within_its_linger_never_departs() -> None:
    async def scenario(site: SiteCluster, tabs: ChromiumClients) -> None:
        await site.connect("ann", "ann", "n2")
        await site.join("ann", ROOM, {"of": "ann"})
        for _ in range(2):
            await site.connect("bob", "bob", "n1")
            await site.join("bob", ROOM, {"of": "bob"}, linger=600.0)
            await site.agree(ROOM, BOTH)
            await tabs.close("bob")
        await site.agree(ROOM, BOTH)
        told = site.seen["ann", ROOM]
        assert (len(told.joins), told.gone) == (2, [])

    show(scenario)


@pytest.mark.parametrize("transport", ["websocket", "longpoll"])
def test_page_of_another_origin_is_refused(transport: str) -> None:
    async def scenario(site: SiteCluster, tabs: ChromiumClients) -> None:
        await site.connect("ann", "ann", transport=transport)
        await until(partial(is_refused, site, "ann"), "ann is refused")
        hint = f"origins=['http://localhost:{site.balancer.port}']"
        assert all(hint in line for line in site.complaints())

    show(scenario, host="localhost", complaint=None)


@pytest.mark.parametrize("transport", ["websocket", "longpoll"])
def test_page_of_an_accepted_origin_works(transport: str) -> None:
    async def scenario(site: SiteCluster, tabs: ChromiumClients) -> None:
        await two_tabs(site, transport=transport, authToken="token of somebody")

    show(scenario, host="localhost", origins=["//localhost:{port}"])
