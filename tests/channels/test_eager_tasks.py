"""Channels in a loop whose tasks begin at once."""

from typing import Any

from adsum.channels import Channel, intercept, on
from tests.support.eager_tasks import fetch_names, needs_eager, run_eagerly

from .app import App
from .asgi_client import asgi_client
from .feed_scenario import FeedScenario


@needs_eager
def test_feed_with_fetch_on_an_empty_topic_sends_later_changes() -> None:
    async def part(scenario: FeedScenario) -> None:
        reader = scenario.reader()
        await scenario.rest()
        for key in ("a", "b"):
            scenario.track(key)
            await scenario.rest()
        assert reader.events() == ["state", "diff", "diff"]
        assert reader.presence.state == await scenario.presence.fetch("room")

    run_eagerly(FeedScenario(fetch=fetch_names).play(part))


@needs_eager
def test_event_handler_ends_before_its_own_broadcast_is_delivered() -> None:
    done: list[str] = []

    class PresenceFeed(Channel, topic="room"):
        @on("do")
        async def do(self, payload: Any) -> dict[str, Any]:
            done.append("begin")
            await self.broadcast("news", {})
            done.append("end")
            return {}

        @intercept("news")
        async def news(self, payload: Any) -> Any:
            done.append("filter")
            return payload

    async def main() -> None:
        app = App(PresenceFeed)
        async with app.node, asgi_client(app.socket) as ann:
            await ann.join("room")
            ann.push("1", "2", "room", "do", {})
            assert await ann.payload("news") == {}
            assert done == ["begin", "end", "filter"]

    run_eagerly(main())
