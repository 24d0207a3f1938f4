"""Questions from one node to another: each answer is for its question, from whom was asked."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import adsum
from adsum.channels.carriers import noderequests, textqueue
from adsum.channels.carriers.noderequests import TOPIC, NodeRequests, Question, TooLongError
from adsum.channels.carriers.textqueue import NoRoomError
from adsum.replication.messages import Publish
from adsum.values.jsontext import dump
from tests.support.nodes import running
from tests.support.waiting import DEADLINE, until

from .captured_log import Log
from .leak_check import leak_checked


class Echo(NodeRequests):
    """Answers what it was asked, once it may."""

    def __init__(self, node: adsum.Node) -> None:
        super().__init__(node, self)
        self.go = asyncio.Event()
        self.asked: list[Question] = []

    def check(self, question: Question) -> None:
        """Every object is a question."""

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


@leak_checked
async def test_relayed_question_is_answered_by_its_target(cluster_name: str) -> None:
    async with two_that_ask(cluster_name) as (one, two, name):
        two.go.set()
        for n in range(3):
            assert await one.ask(name, {"n": n}, DEADLINE) == {"echo": {"n": n}}
        assert (one.asked, two.asked) == ([], [{"n": n} for n in range(3)])
        assert await one.ask("nobody", {}, DEADLINE) is None


@leak_checked
async def test_answer_from_another_node_than_the_target_is_dropped(cluster_name: str) -> None:
    async with two_that_ask(cluster_name) as (one, two, name):
        asking = asyncio.create_task(one.ask(name, {"n": 1}, DEADLINE))
        await until(lambda: two.asked)
        (number,) = one._waiting
        one.delivered("another", answer(number, {"forged": True}))
        one.delivered(name, answer(number + 1, {"of": "another question"}))
        two.go.set()
        assert await asking == {"echo": {"n": 1}}
        one.delivered(name, answer(number, {"late": True}))  # and nobody waits for it


@leak_checked
async def test_question_numbers_of_two_incarnations_differ(cluster_name: str) -> None:
    numbers = list[int]()
    for _ in range(3):
        async with two_that_ask(cluster_name) as (one, two, name):
            asking = asyncio.create_task(one.ask(name, {}, DEADLINE))
            await until(lambda two=two: two.asked)  # type: ignore[misc]  # this turn's one
            numbers += one._waiting
            two.go.set()
            await asking
    assert all(abs(one - two) > 1000 for one, two in itertools.pairwise(numbers))


def pieces(event: str, number: int, text: str, of: int) -> list[Publish]:
    """A text in so many pieces."""
    size = -(-len(text) // of)
    bodies = [
        {"number": number, "index": n, "of": of, "text": text[n * size : (n + 1) * size]}
        for n in range(of)
    ]
    return [Publish(TOPIC, event, dump(body)) for body in bodies]


@leak_checked
async def test_long_relayed_texts_take_turns_and_do_not_block_the_link(
    cluster_name: str,
) -> None:
    async with two_that_ask(cluster_name) as (one, two, name):
        two.go.set()
        waiting = list[int]()
        publish = one._node.driver.publish
        under_way = 0

        async def counted(message: Publish, to: str | None) -> int:
            nonlocal under_way
            under_way += 1
            waiting.append(under_way)
            try:
                return await publish(message, to)
            finally:
                under_way -= 1

        one._node.driver.publish = counted  # type: ignore[method-assign]  # it is counted
        questions = [{"n": n, "text": str(n) * 1_000_000} for n in range(8)]
        asking = [asyncio.create_task(one.ask(name, each, DEADLINE)) for each in questions]
        small = await one.ask(name, {"small": True}, DEADLINE)
        assert small == {"echo": {"small": True}}
        assert not all(task.done() for task in asking)  # it did not wait for all of them
        assert await asyncio.gather(*asking) == [{"echo": each} for each in questions]
        assert set(waiting) == {1}
        assert one._lanes == two._lanes == {}


@pytest.mark.slow
@leak_checked
async def test_long_questions_beyond_the_memory_bound_are_refused(
    cluster_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_that_ask(cluster_name) as (one, two, name):
        half = {"text": "x" * (textqueue.MAX_IN_FLIGHT_TEXTS // 2 - 1000)}
        first = [asyncio.create_task(one.ask(name, half, DEADLINE)) for _ in range(2)]
        await until(lambda: len(two.asked) == 2)
        with monkeypatch.context() as impatient:
            impatient.setattr(textqueue, "ROOM_PATIENCE", 0.2)
            with pytest.raises(NoRoomError):
                await one.ask(name, half, DEADLINE)
        short = asyncio.create_task(one.ask(name, {"short": True}, DEADLINE))
        await until(lambda: len(two.asked) == 3)
        waiting = asyncio.create_task(one.ask(name, half, DEADLINE))
        two.go.set()
        answers = await asyncio.gather(*first, short, waiting)
        assert [len(str(answer)) > 100 for answer in answers] == [True, True, False, True]


@leak_checked
async def test_oversized_question_is_refused_before_sending(cluster_name: str) -> None:
    async with two_that_ask(cluster_name) as (one, two, name):
        before = one._node.stats()["sent_bytes_total"]
        with pytest.raises(TooLongError):
            await one.ask(name, {"text": "x" * noderequests.MAX_QUESTION}, DEADLINE)
        assert one._node.stats()["sent_bytes_total"] - before < 5_000
        assert two.asked == []


@leak_checked
async def test_questions_beyond_the_memory_bound_are_refused_with_one_line(
    cluster_name: str, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    monkeypatch.setattr(textqueue, "MAX_STORED_QUESTIONS", 1000)

    async with two_that_ask(cluster_name) as (one, two, name):
        question = {"text": "x" * 600}
        first = asyncio.create_task(one.ask(name, question, DEADLINE))
        await until(lambda: two.asked)
        for _ in range(5):
            with pytest.raises(NoRoomError):
                await one.ask(name, question, DEADLINE)
        two.go.set()
        assert await first == {"echo": question}
        assert await one.ask(name, question, DEADLINE) == {"echo": question}
        assert len(log.lines) == 1


@pytest.mark.slow
@leak_checked
async def test_incomplete_questions_are_memory_bound_for_each_sender(
    cluster_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(textqueue, "MAX_STORED_QUESTIONS", 1000)

    async with two_that_ask(cluster_name) as (one, two, name):
        two.go.set()
        sender = one._node.name
        mine = pieces("ask", 1, dump({"text": "mine"}), 2)
        two.delivered(sender, mine[0])
        for number in range(100):
            two.delivered("another", pieces("ask", number, "x" * 200, 2)[0])
        assert len(two._kept["another"].partial) == 10
        two.delivered(sender, mine[1])
        await until(lambda: two.asked == [{"text": "mine"}])
        assert await one.ask(name, {}, DEADLINE) == {"echo": {}}
        await until(lambda: "another" not in two._kept)


@leak_checked
async def test_unexpected_answers_are_dropped(cluster_name: str) -> None:
    async with two_that_ask(cluster_name) as (one, two, name):
        for number in range(100):
            one.delivered(name, pieces("answer", number, "x" * 1000, 2)[0])
        assert one._kept == {}
        asking = asyncio.create_task(one.ask(name, {"n": 1}, DEADLINE))
        await until(lambda: two.asked)
        (number,) = one._waiting
        one.delivered(name, pieces("answer", number, "x" * 1000, 2)[0])
        assert one._kept[name].partial
        asking.cancel()
        await asyncio.wait([asking])
        assert not one._kept[name].partial


@pytest.mark.parametrize(
    "wrong",
    [{"index": 1}, {"of": 0}, {"of": 10**9}, {"text": "x" * (textqueue.PIECE + 1)}],
    ids=lambda wrong: next(iter(wrong)),
)
@leak_checked
async def test_piece_with_invalid_fields_is_dropped(
    wrong: dict[str, Any], cluster_name: str, log: Log
) -> None:
    async with two_that_ask(cluster_name) as (one, two, name):
        two.go.set()
        body = {"number": 1, "index": 0, "of": 1, "text": "{}"} | wrong
        two.delivered(one._node.name, Publish(TOPIC, "ask", dump(body)))
        assert await one.ask(name, {"n": 1}, DEADLINE) == {"echo": {"n": 1}}
        assert two.asked == [{"n": 1}]
        assert len(log.lines) == 1
