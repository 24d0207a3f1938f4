"""A cluster whose nodes register and resolve services."""

from collections.abc import Iterable
from typing import Any

import adsum
from adsum.testing import Cluster

NAME = "users"


class Crew:
    """A cluster with one `Services` for each node; each registers addresses such as ``n1:80``."""

    def __init__(self, cluster: Cluster, **settings: Any) -> None:
        self.cluster = cluster
        self.services = [adsum.Services(member.node, **settings) for member in cluster]

    def __getitem__(self, which: int) -> adsum.Services:
        return self.services[which]

    def register_each(self, **settings: Any) -> list[adsum.Registration]:
        """Let each node register itself, and tell the others."""
        found = [
            services.register(NAME, f"{member.name}:80", **settings)
            for services, member in zip(self.services, self.cluster, strict=True)
        ]
        self.cluster.settle()
        return found

    def listed(self, which: int, **arguments: Any) -> list[str]:
        return [instance.address for instance in self[which].instances(NAME, **arguments)]

    def resolved(self, which: int, count: int = 12, **arguments: Any) -> set[str]:
        """The addresses that a number of resolves return."""
        return set(self.sequence(which, count, **arguments))

    def sequence(self, which: int, count: int, **arguments: Any) -> list[str]:
        return [self[which].resolve(NAME, **arguments).address for _ in range(count)]

    def at(self, which: int, address: str) -> adsum.Instance:
        """The listed instance at an address."""
        found = [one for one in self[which].instances(NAME) if one.address == address]
        assert len(found) == 1
        return found[0]


def counts(addresses: Iterable[str]) -> dict[str, int]:
    """How often each address occurs."""
    found = dict[str, int]()
    for address in addresses:
        found[address] = found.get(address, 0) + 1
    return found
