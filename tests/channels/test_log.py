"""The log is one line for each thing that happens, whatever clients put into their names."""

from typing import Any

import pytest

from adsum.channels import Channel, Client, RefusedError, on
from tests.support.waiting import until

from .app import App
from .asgi_client import AsgiClient, asgi_client
from .captured_log import Log
from .leak_check import run

FORGED = "x\nERROR root the disk is full"
ESCAPED = r"x\nERROR root the disk is full"


class Room(Channel, topic="room:{room}"):
    """Crashes when it is asked to."""

    @on(FORGED)
    async def crash(self, payload: Any) -> None:
        raise RuntimeError("the handler crashes")


async def connect(client: Client) -> None:
    """Take over what the client says of itself."""
    if "refuse" in client.params:
        raise RefusedError(FORGED)
    client.id = FORGED


@pytest.mark.parametrize(
    "frame",
    ["nonsense", ["1", "2", f"room:{FORGED}", FORGED, {}], ["1", "2", f"room:{FORGED}", "\n", {}]],
)
def test_ids_topics_and_events_are_logged_in_one_line(frame: Any, log: Log) -> None:
    async def main() -> None:
        app = App(Room, connect=connect)
        async with app.node, asgi_client(app.socket) as ann:
            await ann.join(f"room:{FORGED}")
            log.clear()
            if frame == "nonsense":
                ann.send(frame)
            else:
                ann.push(*frame)
            await until(lambda: log.lines)
            (said,) = log.lines
            assert ESCAPED in said
            assert "\n" not in said

    run(main())


def test_refusal_is_logged_in_one_line(log: Log) -> None:
    async def main() -> None:
        app = App(Room, connect=connect)
        async with app.node:
            ann = AsgiClient(app.socket, "vsn=2.0.0&refuse=1")
            await ann.open()
            await ann.served()
            assert ann.closed == 403
            assert ESCAPED in log.everything
            assert FORGED not in log.everything

    run(main())
