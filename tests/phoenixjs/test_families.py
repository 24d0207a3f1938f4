"""Each client library takes the same steps; `make compat` runs all of them."""

from functools import partial

import pytest

from tests.support.compatibility import CellRecord, is_whole

from .families import FAMILIES, Family
from .family_steps import LONG, STEPS, Stage
from .scenario import run
from .site_cluster import SiteCluster

pytestmark = pytest.mark.processes


async def play(site: SiteCluster, family: Family, cells: CellRecord) -> None:
    stage = Stage(site, family)
    for name, step in STEPS.items():
        note = family.notes.get(name, "ok")
        if note.startswith("ok") and (is_whole() or name not in LONG):
            await step(stage)
        cells.add("client", family.title, name, note)


@pytest.mark.parametrize(
    "family",
    [family for family in FAMILIES if is_whole() or family.short],
    ids=lambda family: family.title,
)
def test_library_takes_each_step(family: Family, compat_cells: CellRecord) -> None:
    polls = family.carrier == "long polling"
    run(
        partial(play, family=family, cells=compat_cells),
        clients=family.clients(),
        # Each request of its own connection, and so to either node.
        keep_alive=not polls,
        # uvicorn complains of requests that it ends when it stops.
        complaint=None if polls else "",
    )
