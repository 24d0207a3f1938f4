"""Channels in a loop whose tasks begin at once."""

from typing import Any

from adsum.channels import Channel, intercept, on
from tests.node.test_eager_tasks import names, needs_eager, run

from .app import App
from .line import line
from .test_rooms import Stage


@needs_eager
def test_a_room_with_fetch_that_is_empty_at_first_sends_later_changes() -> None:
    async def part(stage: Stage) -> None:
        reader = stage.reader()
        await stage.rest()
        for key in ("a", "b"):
            stage.track(key)
            await stage.rest()
        assert reader.events() == ["state", "diff", "diff"]
        assert reader.presence.state == await stage.presence.fetch("room")

    run(Stage(fetch=names).play(part))


@needs_eager
def test_an_event_is_handled_to_its_end_before_a_broadcast_that_it_caused() -> None:
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
        async with app.node, line(app.socket) as ann:
            await ann.join("room")
            ann.push("1", "2", "room", "do", {})
            assert await ann.payload("news") == {}
            assert done == ["begin", "end", "filter"]

    run(main())
