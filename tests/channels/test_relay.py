"""Questions from one node to another: each answer is for its question, from whom was asked."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import adsum
from adsum.channels.relay import TOPIC, Question, Relay
from adsum.replication.jsontext import dump
from adsum.replication.messages import Publish
from tests.node.conftest import running

from .running import DEADLINE, run, until


class Echo(Relay):
    """Answers what it was asked, once it may."""

    def __init__(self, node: adsum.Node) -> None:
        super().__init__(node)
        self.go = asyncio.Event()
        self.asked: list[Question] = []

    async def answer(self, question: Question) -> Question:
        self.asked.append(question)
        await self.go.wait()
        return {"echo": question}

    def lost(self, question: Question) -> None:
        """Nothing is kept for an answer."""


@asynccontextmanager
async def two_that_ask(cluster: str) -> AsyncIterator[tuple[Echo, Echo, str]]:
    """Two relays, and the name of the second one's node."""
    async with running(2, cluster=cluster) as (one, two):
        yield Echo(one), Echo(two), two.name


def answer(number: int, value: Any) -> Publish:
    """An answer in one piece."""
    body = {"number": number, "index": 0, "of": 1, "text": dump(value)}
    return Publish(TOPIC, "answer", dump(body))


def test_a_question_is_answered_by_the_node_that_is_asked(cluster_name: str) -> None:
    async def main() -> None:
        async with two_that_ask(cluster_name) as (one, two, name):
            two.go.set()
            for n in range(3):
                assert await one.ask(name, {"n": n}, DEADLINE) == {"echo": {"n": n}}
            assert (one.asked, two.asked) == ([], [{"n": n} for n in range(3)])
            assert await one.ask("nobody", {}, DEADLINE) is None

    run(main())


def test_an_answer_counts_only_from_the_node_that_was_asked(cluster_name: str) -> None:
    async def main() -> None:
        async with two_that_ask(cluster_name) as (one, two, name):
            asking = asyncio.create_task(one.ask(name, {"n": 1}, DEADLINE))
            await until(lambda: two.asked)
            (number,) = one._waiting
            one.delivered("another", answer(number, {"forged": True}))
            one.delivered(name, answer(number + 1, {"of": "another question"}))
            two.go.set()
            assert await asking == {"echo": {"n": 1}}
            one.delivered(name, answer(number, {"late": True}))  # and nobody waits for it

    run(main())


def test_the_numbers_of_one_life_of_a_node_are_not_those_of_the_next(cluster_name: str) -> None:
    async def main() -> None:
        numbers = list[int]()
        for _ in range(3):
            async with two_that_ask(cluster_name) as (one, two, name):
                asking = asyncio.create_task(one.ask(name, {}, DEADLINE))
                await until(lambda two=two: two.asked)  # type: ignore[misc]  # this turn's one
                numbers += one._waiting
                two.go.set()
                await asking
        assert all(abs(one - two) > 1000 for one, two in itertools.pairwise(numbers))

    run(main())
