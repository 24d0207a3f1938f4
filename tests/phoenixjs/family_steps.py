"""The steps that every client library takes on a site of two nodes, one after the other.

After each, every node and every client shows the same presences, and each client has announced
each change of them once.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.support.waiting import until

from .families import LEAVES_FIRST, Family
from .scenario import room_of
from .site_cluster import SiteCluster

HEARD = {"text": "häß 😀"}


@dataclass
class Stage:
    """Ann and Bob, clients of one library, in one room.

    Attributes:
        present: The metas by user.
    """

    site: SiteCluster
    family: Family
    present: dict[str, list[Any]] = field(
        default_factory=lambda: {name: [{"of": name}] for name in ("ann", "bob")}
    )

    async def enter(self, client: str, user: str) -> None:
        await self.site.connect(client, user, **self.family.how)
        joined = await self.join(client, user)
        assert joined["status"] == "ok", joined

    async def join(self, client: str, user: str) -> Any:
        return await self.site.join(client, self.family.topic, {"of": user})

    async def agree(self) -> None:
        await self.site.agree(self.family.topic, self.present)

    async def push(self, event: str, payload: Any) -> Any:
        room = {"client": "ann", "topic": self.family.topic}
        return await self.site.clients.ask("push", event=event, payload=payload, **room)

    async def command(self, path: str) -> None:
        for name in self.site.alive:
            await self.site.servers[name].post(path)

    async def room(self, client: str) -> Any:
        return await room_of(self.site, client, self.family.topic)

    async def node_of(self, client: str) -> str:
        """The node to which a client is connected, or that has its session."""
        response = (await self.room(client))["response"] or {}
        return str(response.get("node") or self.site.balancer.node_of(client))

    def shown_without_pause(self, user: str) -> bool:
        """Whether no client has seen a user leave."""
        return all(user not in ledger.gone for ledger in self.site.seen.values())


async def join(stage: Stage) -> None:
    for name in stage.present:
        await stage.enter(name, name)
    await stage.agree()


async def reply(stage: Stage) -> None:
    answer = await stage.push("echo", {"n": 1})
    assert answer["status"] == "ok"
    assert answer.get("response", {"n": 1}) == {"n": 1}


async def error_reply(stage: Stage) -> None:
    answer = await stage.push("refuse", {})
    assert answer["status"] == "error"
    if stage.family.notes.get("error reply") is None:
        assert answer["response"] == {"reason": "no"}


async def broadcast(stage: Stage) -> None:
    await stage.site.servers["n1"].post(f"shout/{stage.family.topic}")
    for name in stage.present:
        await until(partial(has_heard, stage, name), f"{name} hears")


async def has_heard(stage: Stage, client: str) -> bool:
    received = (await stage.room(client))["received"]
    assert received in ([], [["shout", HEARD]])
    return bool(received)


async def update(stage: Stage) -> None:
    await stage.command(f"command/{stage.family.topic}/ann/away")
    stage.present["ann"] = [{"of": "ann", "away": True}]
    await stage.agree()
    assert stage.shown_without_pause("ann")


async def second_tab(stage: Stage) -> None:
    first = stage.present["ann"]
    await stage.enter("ann2", "ann")
    stage.present["ann"] = [*first, {"of": "ann"}]
    await stage.agree()
    if LEAVES_FIRST in stage.family.notes.get("second tab", ""):
        await stage.site.clients.ask("leave", client="ann2", topic=stage.family.topic)
    await stage.site.clients.ask("forget", client="ann2")
    stage.present["ann"] = first
    await stage.agree()
    assert stage.shown_without_pause("ann")


async def rejoin(stage: Stage) -> None:
    """Leave and join again, without looking in between."""
    await stage.site.clients.ask("leave", client="ann", topic=stage.family.topic)
    await stage.join("ann", "ann")
    stage.present["ann"] = [{"of": "ann"}]
    await stage.agree()


async def crash(stage: Stage) -> None:
    before = (await stage.room("bob"))["joins"]
    await stage.command(f"command/{stage.family.topic}/bob/crash")
    await until(partial(has_joined, stage, "bob", before + 1), "bob joins again")
    await stage.agree()


async def has_joined(stage: Stage, client: str, times: int) -> bool:
    return bool((await stage.room(client))["joins"] == times)


async def kill(stage: Stage) -> None:
    await end_of_server(stage, stage.site.kill)


async def stop(stage: Stage) -> None:
    await end_of_server(stage, stage.site.terminate)


async def end_of_server(stage: Stage, end: Callable[[str], Awaitable[None]]) -> None:
    before, node = (await stage.room("ann"))["joins"], await stage.node_of("ann")
    await end(node)
    await until(partial(has_joined, stage, "ann", before + 1), "ann joins again")
    await stage.agree()
    await stage.site.start(node)
    await stage.agree()


#: Steps that start a server.
LONG = {"server killed", "server stopped"}
#: By the name of their column.
STEPS: dict[str, Callable[[Stage], Awaitable[None]]] = {
    "join": join,
    "reply": reply,
    "error reply": error_reply,
    "broadcast": broadcast,
    "update in place": update,
    "second tab": second_tab,
    "leave, rejoin": rejoin,
    "channel crash": crash,
    "server killed": kill,
    "server stopped": stop,
}
