"""Rolling deploys under phoenix.js: no client is told of a leave or a join that did not happen."""

import pytest

from .scenario import ROOM, run
from .site_cluster import SiteCluster

pytestmark = pytest.mark.processes

USERS = [f"user-{number:02}" for number in range(30)]
#: Milliseconds after which the slowest client connects again: longer than a server takes to
#: restart, so that servers stop and start while clients of the one before are away.
SLOWEST = 1500
PRESENT = {user: [{"of": user}] for user in USERS}


@pytest.mark.parametrize(("names", "deploys"), [("automatic", 1), ("fixed", 2)])
def test_rolling_deploys_show_no_client_a_leave_or_a_join(names: str, deploys: int) -> None:
    async def scenario(site: SiteCluster) -> None:
        for number, user in enumerate(USERS):
            await site.connect(user, user, pauseMs=SLOWEST * number / len(USERS))
            await site.join(user, ROOM, {"of": user})
        await site.agree(ROOM, PRESENT)
        for _ in range(deploys):
            for name in site.servers:
                await site.terminate(name)
                await site.start(name)
        await site.agree(ROOM, PRESENT)
        looks = await site.look()
        assert all(look["rooms"][ROOM]["joins"] > 1 for look in looks.values())
        gone = {client: ledger.gone for (client, _), ledger in site.seen.items() if ledger.gone}
        assert gone == {}

    run(scenario, nodes=3, environment={"ADSUM_LINGER": "10"}, fixed_names=names == "fixed")
