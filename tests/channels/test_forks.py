"""Channels in a forked child: the clients stay with the parent, and the child has its own."""

import asyncio
from typing import Any

import pytest

import adsum
from adsum.channels import Channel, Socket
from adsum.channels.carriers.noderequests import NodeRequests, Question
from tests.support.forked_child import in_child

from .asgi_client import asgi_client
from .leak_check import run

ended: list[str] = []


class Room(Channel, topic="room:{room}"):
    """Tracks, and records that it ended."""

    async def join(self, payload: Any) -> None:
        self.track(self.topic)

    async def terminate(self, reason: str) -> None:
        ended.append(self.topic)


def test_channels_of_parent_do_not_end_in_child_that_runs_the_node() -> None:
    node = adsum.Node(siblings=False)
    presence = adsum.Presence(node)
    socket = Socket(presence, [Room])

    async def serve_in_child() -> Any:
        async with node:
            before = socket.stats()["connections"]
            async with asgi_client(socket) as bob:
                await bob.join("room:child")
                listed = presence.topics()
            return before, listed, ended

    async def main() -> None:
        async with node, asgi_client(socket) as ann:
            await ann.join("room:parent")
            found = in_child(lambda: asyncio.run(serve_in_child()))
            assert found == [0, ["room:child"], ["room:child"]]
            assert socket.stats()["connections"] == 1
            assert presence.topics() == ["room:parent"]
            assert ended == []

    run(main())


class Unasked:
    """Answers nothing, since nobody asks it."""

    def check(self, question: Question) -> None:
        """Every object is a question."""

    async def answer(self, question: Question) -> Question:
        return {}

    def lost(self, question: Question) -> None:
        """Nothing is kept for an answer."""


def test_questions_of_forked_workers_have_different_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers: list[int] = []

    async def send(
        self: NodeRequests, lane: Any, name: str, event: str, number: int, text: str
    ) -> bool:
        numbers.append(number)
        return False

    monkeypatch.setattr(NodeRequests, "_send", send)
    monkeypatch.setattr(NodeRequests, "incarnations", lambda self: {"other": 1})
    asker = NodeRequests(adsum.Node(siblings=False), Unasked())

    def ask() -> list[int]:
        for _ in range(3):
            asyncio.run(asker.ask("other", {}, 1.0))
        return numbers

    asked = [number for _ in range(2) for number in in_child(ask)]
    assert len(set(asked)) == 6
