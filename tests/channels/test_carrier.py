"""A carrier may write frames while they are queued: order, counters and limits hold."""

import asyncio

from .app import App, Tracking
from .direct_carrier import Direct
from .leak_check import run
from .phoenix_presence import Presence


def test_frame_is_written_before_send_returns() -> None:
    async def main() -> None:
        app = App(Tracking)
        async with app.node:
            client = Direct(app.socket)
            client.send(None, "1", "phoenix", "heartbeat", {})
            assert client.frames == [[None, "1", "phoenix", "phx_reply", _OK]]
            outbox = client.connection.outbox
            assert (outbox.frames, bool(outbox), outbox.half_full) == (1, False, False)
            await client.connection.finish()

    run(main())


def test_presences_written_at_once_fold_to_the_list() -> None:
    async def main() -> None:
        app = App(Tracking)
        async with app.node:
            clients = [Direct(app.socket) for _ in range(3)]
            for n, client in enumerate(clients):
                client.send("1", "1", "room", "phx_join", {})
                client.send("1", "2", "room", "track", {"key": f"k{n}"})
                for _ in range(20):
                    await asyncio.sleep(0)
                    app.socket.flush_presences()
            clients[0].send("1", "3", "room", "untrack", {"key": "k0"})
            for _ in range(20):
                await asyncio.sleep(0)
                app.socket.flush_presences()
            for client in clients:
                events = [event for event in client.events() if event != "phx_reply"]
                assert events[0] == "presence_state"
                assert set(events[1:]) <= {"presence_diff"}
                presence = Presence("1")
                for frame in client.frames:
                    presence.take(frame)
                assert sorted(presence.state) == ["k1", "k2"]
            for client in clients:
                await client.connection.finish()

    run(main())


def test_closing_connection_calls_the_carrier_with_an_empty_outbox() -> None:
    async def main() -> None:
        app = App(Tracking)
        async with app.node:
            client = Direct(app.socket)
            called = []
            client.filled = lambda: called.append(client.connection.closing)  # type: ignore[method-assign]  # watched
            client.connection.close(1001, "timeout")
            assert [closing and closing.code for closing in called] == [1001]
            await client.connection.finish()

    run(main())


_OK = {"status": "ok", "response": {}}
