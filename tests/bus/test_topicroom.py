"""The room for messages on topics, in `TopicRoom` itself: when it ends, and when it is back."""

import asyncio

from adsum.bus.limits import TOPIC_BACKLOG
from adsum.bus.topicroom import TopicRoom
from tests.support.transports import in_loop
from tests.support.waiting import until


class Client:
    """A client with the backlog that a test sets, and all that its room has reported."""

    def __init__(self) -> None:
        self.size: int | None = 0
        self.looks = 0
        self.changes: list[bool] = []
        later = asyncio.get_running_loop().call_later
        self.room = TopicRoom(self._backlog, self.changes.append, later)

    def _backlog(self) -> int | None:
        self.looks += 1
        return self.size

    async def looked(self, times: int = 2) -> None:
        """Wait for this many further looks, without a publish."""
        goal = self.looks + times
        await until(lambda: self.looks >= goal, "further looks at the backlog")


@in_loop
async def test_room_ends_beyond_the_bound_and_is_back_at_a_quarter_of_it() -> None:
    client = Client()
    client.size = TOPIC_BACKLOG
    client.room.check()
    assert client.changes == []
    client.size = TOPIC_BACKLOG + 1
    client.room.check()
    client.room.check()
    assert client.changes == [False]
    client.size = TOPIC_BACKLOG // 4 + 1
    await client.looked()
    assert client.changes == [False]
    client.size = TOPIC_BACKLOG // 4
    await until(lambda: client.changes == [False, True], "the room")
    client.size = TOPIC_BACKLOG + 1
    client.room.check()
    assert client.changes == [False, True, False]
    client.room.stop()


@in_loop
async def test_closed_or_stopped_room_reports_nothing_more() -> None:
    closed, stopped, other = Client(), Client(), Client()
    for client in (closed, stopped, other):
        client.size = TOPIC_BACKLOG + 1
        client.room.check()
    closed.size = None
    stopped.size = 0
    stopped.room.stop()
    await other.looked()
    for client in (closed, stopped):
        client.size = TOPIC_BACKLOG + 1
        client.room.check()
        assert client.changes == [False]
    other.room.stop()
