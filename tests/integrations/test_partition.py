"""A partition of the cluster: the clients of each side use the servers of their own side."""

import asyncio

import adsum
from adsum.testing import MakeCluster

from .clients import Client
from .raw_server import RawServer


def test_partition_sends_requests_to_the_own_side_until_it_heals(
    cluster: MakeCluster, client_type: type[Client]
) -> None:
    members = cluster(4)
    services = [adsum.Services(member.node) for member in members]

    async def answers(which: int) -> set[str]:
        async with client_type(services[which]) as client:
            return {(await client.fetch()).text.split()[0] for _ in range(12)}

    async def each_side() -> list[set[str]]:
        """The servers that answer, before, during and after a partition."""
        found = []
        async with RawServer("a") as a, RawServer("b") as b:
            for number, server in enumerate((a, b, a, b)):
                services[number].register("users", f"{server.address}/{number}")
            members.settle()
            found.append(await answers(0))
            members.partition([0, 2], [1, 3])
            members.run(10)
            found += [await answers(0), await answers(3)]
            members.heal()
            members.settle()
            found.append(await answers(3))
        return found

    assert asyncio.run(each_side()) == [{"a", "b"}, {"a"}, {"b"}, {"a", "b"}]
