"""Uses of the public API that type checkers accept, with the types that they infer.

Read by mypy and pyright, see `test_checkers.py`; never run.
"""

# pyright: strict

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from ssl import SSLContext
from typing import Any, ClassVar, assert_type

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

import adsum
from adsum.channels import (
    Answer,
    Channel,
    ChannelPresence,
    Client,
    Limits,
    Reason,
    RefusedError,
    Socket,
    intercept,
    on,
)
from adsum.testing import (
    Browser,
    Cluster,
    ClusterMember,
    JoinedChannel,
    MakeCluster,
    RefusedByServerError,
)

# Node.


async def node_lifecycle(context: SSLContext) -> None:
    node = adsum.Node(
        name="web-1",
        cluster="shop",
        listen=["127.0.0.1:0"],
        peers="10.0.0.5:7400",
        secret=b"sixteen bytes or",
        tls=adsum.TLS(context, context, allow_unverified=True),
        linger=5,
        siblings=False,
    )
    assert_type(adsum.TLS.from_files("node.pem", "node.key", "ca.pem"), adsum.TLS)
    assert_type(await node.start(), None)
    async with node as same:
        assert_type(same, adsum.Node)
    assert_type(await node.wait_joined(timeout=None), bool)
    assert_type(node.joined, bool)
    assert_type(node.running, bool)
    assert_type(node.stopping, bool)
    assert_type(node.name, str)
    assert_type(node.address, str | None)
    assert_type(node.addresses, tuple[str, ...])
    assert_type(node.stats(), dict[str, int])
    assert_type(node.begin_stop(), None)
    assert_type(await node.stop(), None)


def members(node: adsum.Node) -> dict[str, int]:
    assert_type(node.members(), list[adsum.MemberInfo])
    return {member.name: member.lag for member in node.members() if member.status == "up"}


async def watch_members(node: adsum.Node) -> None:
    with node.watch_members() as diffs:
        assert_type(diffs, adsum.MembersWatch)
        async for diff in diffs:
            assert_type(diff, adsum.MembersDiff)
            assert_type(diff.joined, tuple[adsum.MemberInfo, ...])
            assert_type(diff.left, tuple[adsum.MemberInfo, ...])
            assert_type(diff.changed, tuple[adsum.MemberInfo, ...])


@asynccontextmanager
async def own_lifespan(app: FastAPI) -> AsyncGenerator[dict[str, int], None]:
    yield {"pool": 1}


def lifespans(node: adsum.Node) -> None:
    FastAPI(lifespan=node.lifespan)
    FastAPI(lifespan=node.wrap_lifespan(own_lifespan))
    Starlette(lifespan=node.lifespan)


def wrapped_apps(node: adsum.Node, socket: Socket) -> None:
    node.wrap_app(FastAPI())
    node.wrap_app(node.wrap_app(Starlette()))
    node.wrap_app(socket)


# Presence.


async def fetch_users(
    topic: str, entries: dict[str, adsum.PresenceEntry]
) -> dict[str, dict[str, str]]:
    return {key: {"user": key.title()} for key in entries}


async def fetch_any(topic: str, entries: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    return {}


class Users:
    async def fetch(self, topic: str, entries: dict[str, Any]) -> dict[str, Any]:
        return {}


def fetch_functions(node: adsum.Node) -> None:
    adsum.Presence(node, fetch=fetch_users, fetch_timeout=1)
    adsum.Presence(node, fetch=fetch_any)
    adsum.Presence(node, fetch=Users().fetch)
    assert_type(adsum.Presence(node, fetch=None).node, adsum.Node)


def portal(node: adsum.Node) -> None:
    adsum.Portal()
    adsum.Portal(node, fetch=fetch_users, fetch_timeout=1, timeout=5)
    with adsum.Portal(node) as portal:
        assert_type(portal, adsum.Portal)
        assert_type(portal.call(node.members), list[adsum.MemberInfo])
        assert_type(portal.call(node.wait_joined, 1), bool)
        assert_type(portal.call(lambda: node.name), str)
        assert_type(portal.list("room"), dict[str, adsum.PresenceEntry])
        assert_type(portal.publish("room", {}), int)
        assert_type(portal.untrack_all("session"), int)
        assert_type(portal.lost("session"), int)
        portal.track("room", "ann", owner="session", linger=15)
        with portal.track("room", "ann", owner="session") as handle:
            assert_type(handle, adsum.PortalTracked)
            handle.update(lambda meta: {**meta, "away": True})
        for diff in portal.watch("room", timeout=5):
            assert_type(diff, adsum.Diff)
        for message in portal.subscribe("room", limit=5):
            assert_type(message, adsum.Message)


async def portal_from_another_loop(portal: adsum.Portal, node: adsum.Node) -> None:
    assert_type(await portal.acall(node.stats), dict[str, int])
    assert_type(await portal.acall(node.wait_joined), bool)


def track(presence: adsum.Presence, connection: object, frozen: Mapping[str, int]) -> None:
    tracked = presence.track("room:1", "ann")
    assert_type(tracked, adsum.Tracked)
    assert_type(tracked.active, bool)
    presence.track("room:1", "ann", {"device": "phone", "tags": ["a"]}, owner=connection)
    presence.track("room:1", "ann", frozen, owner=None, linger=2.5)
    assert_type(presence.lost(connection), int)
    presence.track("room:1", "ann", owner=adsum.CURRENT_TASK)
    with presence.track("room:1", "bob") as bob:
        assert_type(bob, adsum.Tracked)
        bob.update({"away": True})
        bob.update(frozen)
        bob.update(lambda meta: {**meta, "away": False})
    tracked.untrack()
    presence.update("room:1", "ann", {"device": "watch"}, owner=connection)
    presence.update("room:1", "ann", lambda meta: meta | {"away": True})
    presence.untrack("room:1", "ann", owner=connection)
    assert_type(presence.untrack_all(connection), int)


async def read(presence: adsum.Presence) -> None:
    entries = presence.list("room:1")
    assert_type(entries, dict[str, adsum.PresenceEntry])
    assert_type(presence.list("room:1", after="ann", limit=50), dict[str, adsum.PresenceEntry])
    assert_type(entries["ann"]["metas"], Sequence[Mapping[str, Any]])
    assert_type(entries["ann"]["metas"][0]["device"], Any)
    assert_type(presence.get("room:1", "ann"), list[Mapping[str, Any]])
    assert_type(presence.count("room:1"), int)
    assert_type(presence.topics(), list[str])
    assert_type(presence.topics("room:"), list[str])
    fetched = await presence.fetch("room:1")
    assert_type(fetched, dict[str, adsum.PresenceEntry])
    assert_type(fetched["ann"]["user"], Any)


async def watch(presence: adsum.Presence) -> None:
    with presence.watch("room:1") as diffs:
        assert_type(diffs, adsum.Watch)
        assert_type(await anext(diffs), adsum.Diff)
        async for diff in diffs:
            assert_type(diff, adsum.Diff)
            assert_type(diff.joins, dict[str, adsum.PresenceEntry])
            assert_type(diff.leaves, dict[str, adsum.PresenceEntry])
            assert_type(diff.updates["ann"]["metas"], Sequence[Mapping[str, Any]])
    assert_type(diffs.closed, bool)
    async with aclosing(presence.watch("room:1")) as closing:
        assert_type(closing, adsum.Watch)


async def watch_topics(presence: adsum.Presence) -> None:
    with presence.watch_topics() as diffs:
        assert_type(diffs, adsum.TopicsWatch)
        assert_type(await anext(diffs), adsum.TopicDiff)
    async for diff in presence.watch_topics("room:"):
        assert_type(diff.topic, str)
        assert_type(diff.joins, dict[str, adsum.PresenceEntry])
        assert_type(diff.arrived, tuple[str, ...])
        assert_type(diff.departed, tuple[str, ...])
        one: adsum.Diff = diff
        assert_type(one.joins, dict[str, adsum.PresenceEntry])


# PubSub.


async def publish(node: adsum.Node, payload: Mapping[str, int]) -> None:
    pubsub = adsum.PubSub(node)
    with pubsub.subscribe("room:1", limit=10, limit_bytes=1024) as messages:
        assert_type(messages, adsum.Subscription)
        messages.add("room:2")
        messages.remove("room:2")
        assert_type(messages.topics, tuple[str, ...])
        missed = await pubsub.publish("room:1", {"text": "hi"}, event="chat", exclude=messages)
        assert_type(missed, int)
        await pubsub.publish("room:1", payload, to="web-2")
        await pubsub.publish("room:1", payload, local=True)
        await pubsub.publish("room:1", b"bytes")
        await pubsub.publish("room:1", bytearray(b"bytes"))
        await pubsub.publish("room:1", memoryview(b"bytes"), to="web-2")
        async for message in messages:
            assert_type(message, adsum.Message)
            assert_type(message.payload, Any)  # a JSON object or bytes, as the topic has them
            text: str = message.payload["text"]
            data: bytes = message.payload
            print(text, data)
            assert_type(message.event, str)
    assert_type(messages.dropped, int)


# Channels.


class Room(Channel, topic="room:{room}"):
    counts_above: ClassVar[int | None] = 100

    async def join(self, payload: Any) -> Answer:
        assert_type(self.topic, str)
        assert_type(self.params, dict[str, str])
        assert_type(self.client, Client)
        if "user" not in self.client.assigns:
            raise RefusedError("unauthorized")
        self.me = self.track(self.client.assigns["user"], {"device": "phone"})
        assert_type(self.me, ChannelPresence)
        self.track("ann", topic="online").untrack()
        self.spawn(self.tick())
        self.push("hello", {"to": self.topic})
        return {"topic": self.topic}

    async def terminate(self, reason: Reason) -> None:
        if reason == "replaced":
            await self.broadcast_from("left", {"again": True})

    async def tick(self) -> None:
        self.push("time", b"\x00")

    @on("say")
    async def say(self, payload: dict[str, str]) -> Answer:
        await self.broadcast("said", {"text": payload["text"]})
        self.me.update(lambda meta: {**meta, "typing": False})
        assert_type(self.me.active, bool)
        return {"heard": 1}

    @on("typing")
    @on("writing")
    async def typing(self, payload: Any) -> None:
        self.me.update({"typing": True})
        self.follow()

    @on("photo")
    async def photo(self, payload: bytes) -> bytes:
        return payload

    @on("leave")
    async def leave(self, payload: Any) -> None:
        self.stop()

    @intercept("said")
    async def said(self, payload: dict[str, Any]) -> dict[str, Any] | None:
        return payload if payload["text"] else None


class Lobby(Room, topic="lobby"):
    """Overrides with narrower types."""

    async def join(self, payload: Any) -> None:
        self.follow()


async def connect(client: Client) -> None:
    if client.token is None:
        raise RefusedError({"reason": "unauthorized", "code": 401})
    client.id = f"user:{client.token}"
    client.assigns["user"] = client.params.get("user", "ann")
    assert_type(client.headers, dict[str, str])
    assert_type(client.address, str | None)


class Accounts:
    async def connect(self, client: Client) -> None: ...


async def sockets(presence: adsum.Presence) -> None:
    Socket(presence, (Room, Lobby), connect=Accounts().connect)
    socket = Socket(
        presence,
        [Room, Lobby],
        connect=connect,
        origins=["https://example.com"],
        limits=Limits(joins=10, interval=5),
        timeout=60,
        when_slow="close",
    )
    assert_type(await socket.broadcast("room:1", "said", {"text": "hi"}), None)
    assert_type(await socket.disconnect("user:ann"), None)
    assert_type(socket.stats(), dict[str, int])
    FastAPI().mount("/socket", socket)
    Starlette(routes=[Mount("/socket", socket)])


# Testing.


def test_with_a_cluster(cluster: MakeCluster, node: adsum.Node) -> None:
    workers = cluster(3, seed=7, linger=5.0)
    assert_type(workers, Cluster)
    assert_type(workers[0], ClusterMember)
    assert_type(workers["n1"].presence, adsum.Presence)
    assert_type(workers[node].pubsub, adsum.PubSub)
    assert_type(workers.adopt(node), ClusterMember)
    assert_type([member.name for member in workers], list[str])
    workers.partition([0, "n2"], [node])
    workers.cut(0, workers[1])
    workers.heal()
    workers.kill(0)
    workers.restart("n1")
    workers.run(0.5)
    workers.settle()
    workers.assert_online("room:1", "ann", "bob", on=[0, node])
    with Cluster(2) as two:
        assert_type(two, Cluster)


async def test_with_a_browser(socket: Socket) -> None:
    async with Browser(socket, {"user": "ann"}, token="t", headers={"cookie": "a"}) as ann:
        assert_type(ann, Browser)
        room = await ann.join("room:1", {"device": "phone"})
        assert_type(room, JoinedChannel)
        assert_type(await room.ask("say", {"text": "hi"}), Any)
        assert_type(await room.expect("said"), Any)
        assert_type(await room.presence(), dict[str, Any])
        await room.push("photo", b"\x00")
        assert_type(await ann.expect_close(), int)
        assert_type(ann.closed, int | None)


# Errors.


def errors(error: Exception) -> None:
    roots: list[type[adsum.AdsumError]] = [
        adsum.UsageError,
        adsum.NodeNotRunningError,
        adsum.ProtocolError,
        adsum.TransportError,
        RefusedError,
        RefusedByServerError,
    ]
    misuses: list[type[adsum.UsageError]] = [
        adsum.ConfigurationError,
        adsum.AlreadyTrackedError,
        adsum.NotTrackedError,
        adsum.WrongThreadError,
    ]
    broken: list[type[adsum.ProtocolError]] = [adsum.HandshakeError]
    unmoved: list[type[adsum.TransportError]] = [
        adsum.CarrierError,
        adsum.ListenError,
        adsum.DialError,
    ]
    refused: type[adsum.DialError] = adsum.DialRefusedError
    value_error: ValueError = adsum.ConfigurationError("listen: no port")
    runtime_error: RuntimeError = adsum.WrongThreadError()
    assert_type(RefusedError().response, dict[str, Any])
    print(roots, misuses, broken, unmoved, refused, value_error, runtime_error, error)


# Services.


async def healthy() -> bool:
    return True


async def services(node: adsum.Node) -> None:
    services = adsum.Services(node, pick="weight", rest=1)
    registration = services.register(
        "users", "10.0.0.5:80", tags=["eu"], weight=2, meta={"v": 1}, check=healthy, every=1
    )
    assert_type(registration, adsum.Registration)
    async with registration as same:
        assert_type(same, adsum.Registration)
    with services.register("users", "10.0.0.5:80", tags={"eu"}) as other:
        assert_type(other.instance, adsum.Instance | None)
        other.update(weight=0)
    instance = services.resolve("users", tag="eu", pick="round_robin")
    assert_type(instance, adsum.Instance)
    assert_type(instance.tags, tuple[str, ...])
    assert_type(services.instances("users"), tuple[adsum.Instance, ...])
    with services.use("users", exclude=[instance]) as used:
        assert_type(used, adsum.Instance)
    assert_type(await services.wait_for("users", 2, timeout=10), tuple[adsum.Instance, ...])
    async for diff in services.watch("users"):
        assert_type(diff.arrived, tuple[adsum.Instance, ...])


async def send(instance: adsum.Instance) -> bytes:
    return instance.address.encode()


async def attempts(services: adsum.Services) -> bytes:
    assert_type(await services.call("users", send, unsent=(KeyError,)), bytes)
    for attempt in services.attempts("users", idempotent=True):
        assert_type(attempt.number, int)
        with attempt as instance:
            assert_type(instance, adsum.Instance)
    while True:
        with next(services.attempts("users")) as instance:
            return await send(instance)
