"""Misuses of the public API that type checkers refuse, each with the errors that it causes.

Read by mypy and pyright, see `test_checkers.py`; never run. Both fail for an ignored error that
they do not find. So the comments of a line, the first for mypy and the second for pyright, state
that both refuse it, and why.
"""

from typing import Any

import adsum
from adsum.channels import (
    Channel,
    ChannelPresence,
    Client,
    Limits,
    RefusedError,
    Socket,
    intercept,
    on,
)
from adsum.testing import Browser, Cluster, MakeCluster

# Node.

adsum.Node("web-1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
adsum.Node(nam="web-1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
adsum.Node(listen=7400)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
adsum.Node(linger="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
adsum.Node(tls=True)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def node(node: adsum.Node) -> None:
    node.name = "web-2"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    node.stats()["links"].upper()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    node.members()[0].lag = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    with node:  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        ...
    node.wrap_app(plain)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    node.wrap_lifespan(plain)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def plain(app: object) -> None: ...


# Presence.


async def fetch_one(topic: str) -> dict[str, dict[str, Any]]:
    return {}


def fetch_blocking(topic: str, entries: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {}


async def fetch_names(topic: str, entries: dict[str, Any]) -> dict[str, str]:
    return {}


def fetch_functions(node: adsum.Node) -> None:
    adsum.Presence()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    adsum.Presence("web-1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    adsum.Presence(node, fetch_users)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    adsum.Presence(node, fetch=fetch_one)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    adsum.Presence(node, fetch=fetch_blocking)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    adsum.Presence(node, fetch=fetch_names)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def fetch_users(topic: str, entries: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {}


async def presence(presence: adsum.Presence) -> None:
    presence.track("room:1", 7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    presence.track("room:1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    presence.track("room:1", "ann", ["phone"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    presence.track("room:1", "ann", {1: "phone"})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    presence.track("room:1", "ann", owner=[])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await presence.track("room:1", "ann")  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    presence.update("room:1", "ann", "away")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    presence.update("room:1", "ann", lambda old, new: new)  # type: ignore[arg-type, misc]  # pyright: ignore[reportArgumentType]
    presence.list(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    presence.list("room:1")["ann"]["metas"].append({})  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    presence.list("room:1")["ann"]["user"] = "Ann"  # type: ignore[index]  # pyright: ignore[reportIndexIssue]
    presence.get("room:1", "ann")[0]["away"] = True  # type: ignore[index]  # pyright: ignore[reportIndexIssue]
    print(presence.fetch("room:1")["ann"])  # type: ignore[index]  # pyright: ignore[reportIndexIssue]
    tracked = presence.track("room:1", "ann")
    tracked.active = False  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    tracked.update({"away"})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async with tracked:  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        ...
    for _ in presence.watch("room:1"):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        ...
    async for diff in presence.watch("room:1"):
        print(diff.joined)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        diff.joins = {}  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
        diff.joins["ann"]["metas"][0]["away"] = True  # type: ignore[index]  # pyright: ignore[reportIndexIssue]


# PubSub.


async def pubsub(pubsub: adsum.PubSub, messages: adsum.Subscription) -> None:
    await pubsub.publish("room:1", "hi")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await pubsub.publish("room:1", [b"hi"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await pubsub.publish("room:1", {}, "chat")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await pubsub.publish("room:1", {}, to=adsum.Node())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await pubsub.publish("room:1", {}, exclude="room:1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pubsub.subscribe("room:1", 10)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    pubsub.subscribe("room:1", limit="10")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pubsub.subscribe("room:1", limit_bytes=1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    messages.add(["room:2"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    messages.topics = ()  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    async for message in messages:
        message.event = "chat"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
        print(message.data)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


# Channels.


class Wrong(Channel, topic=7):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportGeneralTypeIssues]
    counts_above = "many"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    async def join(self) -> None: ...  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]

    async def terminate(self, reason: int) -> None: ...  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]

    @on("blocking")  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    def blocking(self, payload: Any) -> None: ...

    @on("number")  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    async def number(self, payload: Any) -> int:
        return 1

    @intercept("said")  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    async def said(self, payload: Any) -> list[str]:
        return []

    @on  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async def bare(self, payload: Any) -> None: ...  # type: ignore[misc]

    async def tick(self) -> None:
        self.spawn(self.tick)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        self.push("said", "hi")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await self.broadcast("said", ["hi"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        self.broadcast("said")  # type: ignore[call-arg, unused-coroutine]  # pyright: ignore[reportCallIssue]
        self.track(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        self.track("ann", {}, "online")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        print(self.clients)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def update(presence: ChannelPresence) -> None:
    presence.update("away")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    presence.active = True  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


async def sockets(presence: adsum.Presence, node: adsum.Node) -> None:
    Socket(node, [])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Socket(presence, [Room("room:1")])  # type: ignore[arg-type, call-arg, list-item]  # pyright: ignore[reportArgumentType, reportCallIssue]
    Socket(presence, Room)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Socket(presence, [Client])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    Socket(presence, [Room], connect=connect_blocking)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Socket(presence, [Room], connect=connect_by_name)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Socket(presence, [Room], origins=[1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    Socket(presence, [Room], limits={"joins": 10})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Socket(presence, [Room], when_slow="drop")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    socket = Socket(presence, [Room])
    await socket.broadcast("room:1", "said", "hi")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await socket.disconnect(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Limits(join=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Limits(joins="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Limits().joins = 2  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    Client().id = 7  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]


class Room(Channel, topic="room:{room}"): ...


def connect_blocking(client: Client) -> None: ...


async def connect_by_name(client: str) -> None: ...


# Testing.


async def testing(cluster: MakeCluster, socket: Socket, node: adsum.Node) -> None:
    cluster()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    cluster("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    cluster(3, seed="a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    workers = cluster(3)
    workers.kill(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    workers.partition(0, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    workers.assert_online("room:1", 7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    workers.settle(5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Cluster(2).adopt("n1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Browser(node)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Browser(socket, {"user": 1})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    with Browser(socket):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        ...
    browser = await Browser(socket).connect()
    browser.join("room:1").presence()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    await browser.join(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# Errors.


def errors() -> tuple[OSError, adsum.UsageError]:
    RefusedError(404)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RefusedError("no", 404)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    error: OSError = adsum.ListenError()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    usage: adsum.UsageError = adsum.NodeNotRunningError()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    return error, usage


# Services.


async def services(services: adsum.Services) -> None:
    services.register("users")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    services.register("users", 80)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    services.register("users", "a", check=lambda: True)  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]
    instance = services.resolve("users")
    instance.weight = 0  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    instance.meta["load"] = 1  # type: ignore[index]  # pyright: ignore[reportIndexIssue]
    services.resolve("users", exclude=["a"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    services.attempts("users", unsent=KeyError())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
