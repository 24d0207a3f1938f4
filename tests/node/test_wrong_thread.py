"""A call from another thread is refused with the call to make instead, which works as it stands."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

import adsum


def suggestions(error: adsum.WrongThreadError) -> list[str]:
    """The expressions that an error suggests."""
    return [code for code in re.findall(r"`([^`]+)`", str(error)) if code.endswith(")")]


def test_suggestion_of_the_wrong_thread_error_works() -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        presence = adsum.Presence(node)
        async with node:
            presence.track("room:1", "ann", owner="session")
            with pytest.raises(adsum.WrongThreadError, match="not in 'asyncio_0'") as caught:
                await asyncio.to_thread(presence.list, "room:1")
            keep, ask, hand_over = suggestions(caught.value)
            names: dict[str, Any] = {"asyncio": asyncio, "presence": presence}
            names |= {"topic": "room:1", "owner": "session"}
            exec(keep, names)  # where the node is started
            assert list(await asyncio.to_thread(eval, ask, names)) == ["ann"]
            await asyncio.to_thread(eval, hand_over, names)
            with presence.watch("room:1") as diffs:
                async with asyncio.timeout(5):
                    while presence.count("room:1"):
                        await anext(diffs)

    asyncio.run(main())


@pytest.mark.parametrize(
    "call",
    [
        lambda presence, _: presence.list("room"),
        lambda presence, _: presence.get("room", "ann"),
        lambda presence, _: presence.count("room"),
        lambda presence, _: presence.topics(),
        lambda presence, _: presence.track("room", "ann", owner=None),
        lambda presence, _: presence.untrack_all("owner"),
        lambda presence, _: presence.watch("room"),
        lambda presence, _: presence.watch_topics(),
        lambda presence, _: presence.node.watch_members(),
        lambda presence, _: presence.node.members(),
        lambda presence, _: presence.node.stats(),
        lambda presence, _: presence.node.name,
        lambda _, pubsub: pubsub.subscribe("room"),
        lambda presence, _: asyncio.run(presence.fetch("room")),
        lambda presence, _: asyncio.run(presence.node.start()),
        lambda presence, _: asyncio.run(presence.node.stop()),
        lambda presence, _: asyncio.run(presence.node.wait_joined()),
        lambda _, pubsub: asyncio.run(pubsub.publish("room", {})),
    ],
)
def test_every_call_from_another_thread_is_refused(call: Callable[[Any, Any], Any]) -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        presence, pubsub = adsum.Presence(node), adsum.PubSub(node)
        async with node:
            with pytest.raises(adsum.WrongThreadError, match="run_coroutine_threadsafe"):
                await asyncio.to_thread(call, presence, pubsub)

    asyncio.run(main())


@pytest.mark.parametrize(
    "opened",
    [
        lambda presence, _: presence.watch("r"),
        lambda presence, _: presence.watch_topics(),
        lambda presence, _: presence.node.watch_members(),
        lambda _, pubsub: pubsub.subscribe("r"),
    ],
    ids=["watch", "several topics", "members", "subscription"],
)
def test_reader_in_another_loop_is_refused_instead_of_never_woken(
    opened: Callable[[Any, Any], Any],
) -> None:
    async def read(reader: Any) -> Any:
        async with asyncio.timeout(5):
            return await anext(reader)

    async def main() -> None:
        node = adsum.Node(siblings=False)
        presence, pubsub = adsum.Presence(node), adsum.PubSub(node)
        async with node:
            reader = opened(presence, pubsub)
            with pytest.raises(adsum.WrongThreadError, match="the event loop of its node"):
                await asyncio.to_thread(asyncio.run, read(reader))
            await pubsub.publish("r", {})
            presence.track("r", "ann", owner=None)
            assert await read(reader)

    asyncio.run(main())


def test_synchronous_endpoint_is_refused_and_may_make_the_suggested_call() -> None:
    node = adsum.Node(siblings=False)
    presence = adsum.Presence(node)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.loop = asyncio.get_running_loop()
        yield

    app = FastAPI(lifespan=node.wrap_lifespan(lifespan))

    @app.get("/wrong")
    def wrong() -> Any:
        try:
            return presence.list("room:1")
        except adsum.WrongThreadError as error:
            return str(error)

    @app.get("/right")
    def right() -> Any:
        fetching = presence.fetch("room:1")
        return asyncio.run_coroutine_threadsafe(fetching, app.state.loop).result()

    async def main() -> None:
        async with app.router.lifespan_context(app):
            presence.track("room:1", "ann")
            transport = httpx2.ASGITransport(app=app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
                text = (await client.get("/wrong")).json()
                assert "write the handler as `async def`" in text
                assert "AnyIO worker thread" in text
                assert list((await client.get("/right")).json()) == ["ann"]

    asyncio.run(main())


@pytest.mark.parametrize("change", ["add", "remove"])
def test_change_of_the_topics_of_a_subscription_from_another_thread_is_refused(
    change: str,
) -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        async with node:
            subscription = adsum.PubSub(node).subscribe("room")
            with pytest.raises(adsum.WrongThreadError, match="Portal"):
                await asyncio.to_thread(getattr(subscription, change), "room")
            assert subscription.topics == ("room",)

    asyncio.run(main())
