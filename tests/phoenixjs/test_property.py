"""phoenix.js, unmodified, shows what the servers list, and announces each real change once.

After whatever happens, once it is over, `presence.state` and `Presence.list` of every client equal
`presence.list` of every node: the same keys, the same refs, the same metas. And what `onJoin` and
`onLeave` announced balances after every single sync, see `Ledger`, which says what a real change
is: no ref is announced as joined that is there, or as left that is not, and nothing changes without
being announced. That holds over reconnects to other nodes, as a Presence keeps what it knew.

A ref joins once for each client and leaves once, and never comes back, where no links are cut. It
does come back to those who were cut off from its node: they were told that it left, as far as they
could know, and it is the same presence still.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from tests.support.effort import scaled

from .random_sequence import Sequence
from .site_cluster import SiteCluster

pytestmark = pytest.mark.processes

STEPS, ROUNDS = 20, 3
#: Logged when dials that were held up by a cut all arrive as it heals.
_DOUBLE_LINK = "another link is open already"
#: Logged by a node that starts while it is cut off.
_NOT_JOINED = "not joined after"


class Stage:
    """A site that lives through many sequences, one after the other."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        # Sessions whose poll is lost do not live long, for everybody has to wait for their end.
        self._site = SiteCluster(3, keep_alive=False, lifetime=2.0)
        self._runner.run(self._site.__aenter__())

    def play(self, seed: int, *, cuts: bool) -> None:
        self._runner.run(self._play(seed, cuts))

    def close(self) -> None:
        self._runner.run(self._site.__aexit__(None, None, None))
        self._runner.close()

    async def _play(self, seed: int, cuts: bool) -> None:
        async with self._clean_site() as site:
            await Sequence(site, seed, cuts=cuts).run(STEPS, ROUNDS)
            expected = (_DOUBLE_LINK, _NOT_JOINED) if cuts else (_DOUBLE_LINK,)
            complaints = site.complaints()
            assert [c for c in complaints if not any(text in c for text in expected)] == []

    @asynccontextmanager
    async def _clean_site(self) -> AsyncIterator[SiteCluster]:
        """The site with all nodes alive and nobody connected, whatever was before."""
        site = self._site
        await site.clear()
        try:
            yield site
        finally:
            site.links.heal()


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    stage = Stage()
    try:
        yield stage
    finally:
        stage.close()


@pytest.mark.parametrize("seed", range(scaled(3)))
def test_clients_show_what_servers_list_without_duplicates(stage: Stage, seed: int) -> None:
    stage.play(seed, cuts=False)


@pytest.mark.parametrize("seed", range(1000, 1000 + scaled(3)))
def test_clients_show_what_servers_list_through_netsplits(stage: Stage, seed: int) -> None:
    stage.play(seed, cuts=True)
