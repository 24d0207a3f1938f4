"""Nodes on a carrier: a message engine in this process, in place of a server."""

from typing import Any

import adsum
from adsum.bus.bustransport import BusTransport
from adsum.driver.carrierdriver import CarrierDriver

from .waiting import until

#: The setting of the nodes; nothing connects there.
URL = "nats://user:password@memory:4222"
SECRET = "a secret of 16 bytes or more"
#: Seconds of silence after which a node is down.
DOWN_AFTER = 0.3


def carrier_node(name: str, cluster: str, **settings: Any) -> adsum.Node:
    """A node on the carrier, without siblings unless the settings say otherwise."""
    usual: dict[str, Any] = {
        "siblings": False,
        "secret": SECRET,
        "heartbeat_interval": 0.05,
        "down_after": DOWN_AFTER,
        "link_grace": 0.2,
        "coalesce_interval": 0.005,
    }
    return adsum.Node(name=name, cluster=cluster, carrier=URL, **{**usual, **settings})


def bus_of(node: adsum.Node) -> BusTransport:
    """The transport of a node on the carrier."""
    driver = node.driver
    assert isinstance(driver, CarrierDriver)
    assert driver.transport.bus is not None
    return driver.transport.bus


async def all_linked(*nodes: adsum.Node) -> None:
    """Wait until each of these nodes has one link to each other one, and lists all as up."""

    def linked() -> bool:
        return all(
            node.stats()["links"] == node.stats()["members_up"] - 1 == len(nodes) - 1
            and {member.status for member in node.members()} == {"self", "up"}
            for node in nodes
        )

    await until(linked)
