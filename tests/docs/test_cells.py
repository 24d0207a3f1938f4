"""The program of docs/how-to/cells.md: servers of several cells, and rooms that move to a new one.

The servers of the move are copies of the program in this process, each with nodes of its own; they
are called as a server calls them.
"""

import asyncio
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fastapi import HTTPException
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.environment import RUNTIME_DIR
from tests.support.nodes import run
from tests.support.ports import free_port
from tests.support.waiting import until

from .example_clients import website
from .example_processes import EXAMPLES, Environment, serving
from .worker_server import receive

_numbers = itertools.count(1)


class Server:
    """A copy of the program that runs its nodes.

    Args:
        variables: Its environment.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
        program: Any = ModuleType(f"cells_{next(_numbers)}")
        path = EXAMPLES / "cells.py"
        sys.modules[program.__name__] = program  # FastAPI resolves annotations there
        with monkeypatch.context() as patched:
            for name, value in variables.items():
                patched.setenv(name, value)
            exec(compile(path.read_text(), str(path), "exec"), program.__dict__)
        self.program = program
        self._lifespan: AbstractAsyncContextManager[None] = program.lifespan(program.app)

    async def start(self) -> "Server":
        """Start the nodes."""
        await self._lifespan.__aenter__()
        return self

    async def stop(self) -> None:
        """Stop the nodes, and forget the program."""
        await self._lifespan.__aexit__(None, None, None)
        del sys.modules[self.program.__name__]

    async def users(self, room: str) -> list[str] | None:
        """The users in a room; None if the server lacks its cell."""
        try:
            return list(await self.program.who(room))
        except HTTPException:
            return None


class Visitor:
    """A WebSocket to a server, as that sees it.

    Attributes:
        accepted: Set when the server has accepted it, or closed it before.
        refused: Whether it was closed before.
        texts: How often each text of the room has arrived.
    """

    def __init__(self, server: Server, room: str, user: str) -> None:
        self.accepted = asyncio.Event()
        self.refused = False
        self.texts = Counter[str]()
        self._inbox = asyncio.Queue[dict[str, Any]]()
        self._inbox.put_nowait({"type": "websocket.connect"})
        scope = {
            "type": "websocket",
            "path": f"/rooms/{room}/{user}",
            "query_string": b"",
            "headers": [],
            "subprotocols": [],
        }
        app = server.program.app
        self._task = asyncio.create_task(app(scope, self._inbox.get, self._take))

    def send(self, text: str) -> None:
        """Send a text to the room."""
        self._inbox.put_nowait({"type": "websocket.receive", "text": text})

    async def leave(self) -> None:
        """Close the connection."""
        self._inbox.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await self._task

    async def _take(self, message: Any) -> None:
        self.refused |= message["type"] == "websocket.close" and not self.accepted.is_set()
        self.accepted.set()
        if message["type"] == "websocket.send":
            self.texts[json.loads(message["text"])["text"]] += 1


class Site:
    """Two servers of cell a, each with a visitor in one room, one of cell b, and a directory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: str) -> None:
        self.servers: dict[str, Server] = {}
        self.visitors: dict[str, Visitor] = {}
        self._monkeypatch = monkeypatch
        self._room = room
        self._texts = itertools.count(1)

    async def restart(self, name: str, **variables: str) -> None:
        """Restart a server; its visitor enters again, at a server of the new cell if refused."""
        if visitor := self.visitors.pop(name, None):
            await visitor.leave()
        if server := self.servers.pop(name, None):
            await server.stop()
        self.servers[name] = await Server(self._monkeypatch, variables).start()
        if name in ("a1", "a2"):
            visitor = await self._enter(name, name)
            if visitor.refused:
                visitor = await self._enter("c1", name)
            assert not visitor.refused
            self.visitors[name] = visitor

    async def _enter(self, server: str, user: str) -> Visitor:
        visitor = Visitor(self.servers[server], self._room, user)
        await visitor.accepted.wait()
        return visitor

    async def check(self) -> None:
        """All servers that read the room list all its visitors, who receive each text once."""
        await until(self._is_listed_everywhere, "each server lists all visitors")
        sent = [f"text {next(self._texts)}" for _ in self.visitors]
        for visitor, text in zip(self.visitors.values(), sent, strict=True):
            visitor.send(text)
        await until(
            lambda: all(one.texts[text] for one in self.visitors.values() for text in sent),
            "each text arrives",
        )
        for visitor in self.visitors.values():
            assert set(visitor.texts.values()) == {1}
        directory = self.servers["directory"].program
        assert await directory.totals() == {"rooms": 1, "users": len(self.visitors)}

    async def _is_listed_everywhere(self) -> bool:
        lists = [await server.users(self._room) for server in self.servers.values()]
        return all(users in (None, sorted(self.visitors)) for users in lists)

    async def stop(self) -> None:
        for visitor in self.visitors.values():
            await visitor.leave()
        for server in self.servers.values():
            await server.stop()


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, short_path: Path) -> Iterator[Any]:
    """The program, for its functions; with a directory for the sockets of all copies."""
    monkeypatch.setenv(RUNTIME_DIR, str(short_path))
    server = Server(monkeypatch, {})
    yield server.program
    del sys.modules[server.program.__name__]


def test_new_cell_takes_its_share_and_no_other_topic_moves(program: Any) -> None:
    topics = [f"room:{number}" for number in range(8000)]
    before = {topic: program.cell_of(topic, ["a", "b", "c"]) for topic in topics}
    after = {topic: program.cell_of(topic, ["d", "c", "b", "a"]) for topic in topics}
    moved = [topic for topic in topics if before[topic] != after[topic]]
    assert {after[topic] for topic in moved} == {"d"}
    for cells in (before, after):
        shares = Counter(cells.values())
        assert max(shares.values()) < 1.1 * min(shares.values())


@pytest.mark.slow
def test_rooms_move_to_a_new_cell_without_a_lost_presence_or_message(
    program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = next(
        str(number)
        for number in itertools.count()
        if program.cell_of(f"room:{number}", ["a", "b"]) == "a"
        and program.cell_of(f"room:{number}", ["a", "b", "c"]) == "c"
    )
    old, new = "a,b", "a,b,c"
    steps: list[tuple[dict[str, str], str]] = [
        ({"CELLS": old}, ""),
        ({"CELLS": old, "ALSO": new}, ",c"),
        ({"CELLS": old, "READ": new}, ",c"),
        ({"CELLS": new}, ""),
    ]

    async def main() -> None:
        site = Site(monkeypatch, room)
        for number, (cells, more) in enumerate(steps):
            if number == 3:
                await site.restart("c1", **cells, SERVED="c")
            for name in ("a1", "b1", "directory", "a2"):
                served = {} if name == "directory" else {"SERVED": name[0] + more}
                await site.restart(name, **cells, **served)
                if number or name == "a2":
                    await site.check()
        assert await site.servers["a1"].users(room) is None
        assert await site.servers["c1"].users(room) == ["a1", "a2"]
        await site.stop()

    run(main())


@pytest.mark.processes
def test_servers_refuse_rooms_of_other_cells_and_the_directory_has_all(
    environment: Environment,
) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            ports, webs = dict[str, int](), dict[str, Any]()
            for served in ("a", "b", "a,b"):
                ports[served] = port = free_port()
                variables = {**environment, "CELLS": "a,b", "SERVED": served}
                usual = ["--port", str(port), "--log-level", "warning"]
                await stack.enter_async_context(
                    serving(variables, "-m", "uvicorn", "cells:app", *usual)
                )
            for served, port in ports.items():
                webs[served] = await stack.enter_async_context(website(port, "/rooms/1/cell"))
            cell = (await webs["a"].get("/rooms/1/cell")).json()
            other = {"a": "b", "b": "a"}[cell]
            clients = [
                await stack.enter_async_context(
                    connect(f"ws://127.0.0.1:{ports[served]}/rooms/1/{user}", proxy=None)
                )
                for served, user in ((cell, "ann"), ("a,b", "bob"))
            ]
            for served in (cell, "a,b"):
                await until(partial(lists_both, webs[served]))
            await clients[0].send("hello")
            for client in clients:
                assert await receive(client, bool) == {"from": "ann", "text": "hello"}
            assert (await webs[other].get("/rooms/1")).status_code == 421
            with pytest.raises(InvalidStatus) as refusal:
                await connect(f"ws://127.0.0.1:{ports[other]}/rooms/1/eve", proxy=None)
            assert refusal.value.response.status_code == 403
            assert (await webs["a,b"].get("/totals")).json() == {"rooms": 1, "users": 2}
            assert (await webs[cell].get("/totals")).status_code == 421

    async def lists_both(web: Any) -> bool:
        return bool((await web.get("/rooms/1")).json() == ["ann", "bob"])

    asyncio.run(main())
