"""Request and response between two nodes, over the cluster's messages.

Long polling needs it, since each request of a client may reach a different worker. Texts are sent
in pieces. A missing answer counts as None.

Texts share the links with broadcasts and presence changes, and clients determine their number and
size. So one piece at a time is in flight to each node, queued like a broadcast, and texts take
turns piece by piece. Long texts have a common bound: a question occupies room until its answer
arrives, an answer until it is sent. The receiving node bounds the texts that it stores for each
sender, and stores no answer that it did not request.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol

from adsum.activetime import active_timeout
from adsum.driver.observer import Observer
from adsum.node import Node
from adsum.quoting import printable
from adsum.replication.messages import Publish
from adsum.sparselog import SparseLogger, error_text
from adsum.tasks import cancel_task, resolve, start_task
from adsum.values.jsontext import dump, load
from adsum.values.names import RESERVED

from .textqueue import PIECE, NoRoomError, StoredTexts, TextQueue

logger = logging.getLogger("adsum.channels")

Question = dict[str, Any]

TOPIC = f"{RESERVED}channels/relay"
#: The answer of a node that already stores too much for the sender.
_NO_ROOM = {"room": False}
#: Characters that a question may have, and an answer. An answer may be one presence state, see
#: `session.MAX_STATE`, in which every character doubles.
MAX_QUESTION, MAX_ANSWER = 8 * 1024 * 1024, 41 * 1024 * 1024
#: Seconds between two checks whether the nodes asked, and those that ask, are still alive.
_CHECK_INTERVAL = 0.5


class TooLongError(Exception):
    """A question is longer than `MAX_QUESTION`."""


class Service(Protocol):
    """Answers the questions of other nodes."""

    def check(self, question: Question) -> None:
        """Check the form of a question.

        Raises:
            KeyError: A field is missing.
            TypeError: A field has a wrong type.
            ValueError: There is no such question.
        """

    async def answer(self, question: Question) -> Question:
        """Compute the answer to a question of another node."""

    def lost(self, question: Question) -> None:
        """Called when the answer to a question could not be sent."""


class NodeRequests(Observer):
    """Sends questions to other nodes and answers theirs. There is one for each node.

    Args:
        node: The node to send and receive with; the relay observes it.
        service: Answers the questions of other nodes.
    """

    def __init__(self, node: Node, service: Service) -> None:
        self._node = node
        self._service = service
        self._log = SparseLogger(logger)
        # Unanswered questions by number: name and incarnation of the node asked, and the answer.
        self._waiting: dict[int, tuple[tuple[str, int], asyncio.Future[Question | None]]] = {}
        # Timer of the next liveness check; set while any node is asked or answered.
        self._check_timer: asyncio.TimerHandle | None = None
        # By name of a node: the send queue to it, and the texts stored for it.
        self._lanes: dict[str, TextQueue] = {}
        self._kept: dict[str, StoredTexts] = {}
        # Tasks that answer: name of the asking node, and its incarnation if known.
        self._tasks: dict[asyncio.Task[None], tuple[str, int | None]] = {}
        node.observe(self)

    async def ask(self, name: str, question: Question, patience: float) -> Question | None:
        """Send a question to a node and wait for the answer.

        Args:
            name: The node to ask.
            question: A JSON object.
            patience: Seconds of active time to wait for the answer.

        Returns:
            The answer; None if there is no such node, or it dies, or does not answer in time.

        Raises:
            TooLongError: The question is longer than `MAX_QUESTION`.
            NoRoomError: Too much is in flight to that node, or it stores too much for this one.
        """
        incarnation = self.incarnations().get(name)
        if incarnation is None:
            return None
        text = dump(question)
        if len(text) > MAX_QUESTION:
            raise TooLongError
        # Random, not counted up: a late answer to a former incarnation of this node, or to its
        # parent process, would be taken for the answer to a different question.
        number = secrets.randbits(62)
        future: asyncio.Future[Question | None] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (name, incarnation), future
        self._check_later()
        try:
            async with active_timeout(patience), self._lane(name) as lane, lane.room(len(text)):
                if not await self._send(lane, name, "ask", number, text):
                    return None
                answer = await future
        except TimeoutError:
            return None
        finally:
            self._waiting.pop(number, None)
            self._forget_partial(name, number)
        if answer == _NO_ROOM:
            raise NoRoomError
        return answer

    def delivered(self, sender: str, message: Publish) -> None:
        """See `Observer`."""
        if message.topic != TOPIC:
            return
        try:
            whole = self._assemble(sender, message)
            if whole is not None:
                self._received(sender, message.event, *whole)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            text = "%s sent a malformed question or answer: %s"
            self._log.warning(text, printable(sender, 255), error_text(error), key=sender)

    def closed(self) -> None:
        """See `Observer`: resolves all questions with None and cancels all answers."""
        self._log.flush()
        if self._check_timer is not None:
            self._check_timer.cancel()
            self._check_timer = None
        waiting, self._waiting = self._waiting, {}
        answering, self._tasks = self._tasks, {}
        self._lanes, self._kept = {}, {}
        for _, future in waiting.values():
            resolve(future)
        for task in answering:
            cancel_task(task)

    def forked(self) -> None:
        """See `Observer`."""
        self._waiting, self._check_timer, self._tasks = {}, None, {}
        self._lanes, self._kept = {}, {}

    def _check_later(self) -> None:
        if self._check_timer is None and (self._waiting or self._tasks):
            loop = asyncio.get_running_loop()
            self._check_timer = loop.call_later(_CHECK_INTERVAL, self._check_nodes)

    def _check_nodes(self) -> None:
        """Resolve the questions to dead nodes with None, and cancel the answers to dead nodes."""
        self._check_timer = None
        if not self._node.running:
            return
        incarnations = self.incarnations()
        for name, kept in list(self._kept.items()):
            if kept.empty or name not in incarnations:
                del self._kept[name]
        for (name, incarnation), future in self._waiting.values():
            if incarnations.get(name) != incarnation:
                resolve(future)
        for task, (name, own) in self._tasks.items():
            if own is not None and incarnations.get(name) != own:
                task.cancel()
        self._check_later()

    def incarnations(self) -> dict[str, int]:
        """The other nodes not known to be down, by name, each with its incarnation."""
        alive = ("up", "suspect")
        members = self._node.members() if self._node.running else []
        return {one.name: one.incarnation for one in members if one.status in alive}

    def _received(self, sender: str, event: str, number: int, text: str) -> None:
        if event == "ask":
            question = dict(load(text))
            self._service.check(question)
            kept = self._kept.setdefault(sender, StoredTexts())
            work = (
                self._reply(sender, number, question)
                if kept.accepts(len(text))
                else self._refuse(sender, number)
            )
            kept.unanswered += len(text)
            task = start_task(work)
            self._tasks[task] = sender, self.incarnations().get(sender)
            task.add_done_callback(partial(self._answered, kept, len(text)))
            self._check_later()
        elif self._is_asked(sender, number):
            resolve(self._waiting[number][1], dict(load(text)))

    def _is_asked(self, name: str, number: int) -> bool:
        """Whether the question of this number was sent to this node and is unanswered."""
        return number in self._waiting and self._waiting[number][0][0] == name

    def _answered(self, kept: StoredTexts, size: int, task: "asyncio.Task[None]") -> None:
        kept.unanswered -= size
        self._tasks.pop(task, None)

    async def _refuse(self, sender: str, number: int) -> None:
        text = "a question of %s was refused: too many of its questions are unanswered"
        self._log.warning(text, printable(sender, 255), key=sender)
        async with self._lane(sender) as lane:
            await self._send(lane, sender, "answer", number, dump(_NO_ROOM))

    async def _reply(self, sender: str, number: int, question: Question) -> None:
        try:
            answer = await self._service.answer(question)
        except Exception as error:
            shown = printable(sender, 255)
            self._log.crashed("answering a question of %s crashed", shown, error=error)
        else:
            if not await self._send_answer(sender, number, answer):
                self._service.lost(question)

    async def _send_answer(self, name: str, number: int, answer: Question) -> bool:
        """Encode and send an answer once there is room; returns whether it was sent."""
        try:
            async with self._lane(name) as lane, lane.room(_size_of(answer)):
                text = dump(answer)
                return len(text) <= MAX_ANSWER and await self._send(
                    lane, name, "answer", number, text
                )
        except NoRoomError:
            return False

    @asynccontextmanager
    async def _lane(self, name: str) -> AsyncIterator[TextQueue]:
        """The send queue to a node, removed after its last use."""
        lane = self._lanes.setdefault(name, TextQueue())
        lane.users += 1
        try:
            yield lane
        finally:
            lane.users -= 1
            if not lane.users and self._lanes.get(name) is lane:
                del self._lanes[name]

    async def _send(self, lane: TextQueue, name: str, event: str, number: int, text: str) -> bool:
        """Send a text in pieces, each once the link has room; returns whether all were queued."""
        of = -(-len(text) // PIECE)
        for index in range(of):
            piece = text[index * PIECE : (index + 1) * PIECE]
            body = {"number": number, "index": index, "of": of, "text": piece}
            message = Publish(TOPIC, event, dump(body))
            async with lane.turn:
                if not self._node.running or await self._node.driver.publish(message, name):
                    return False
            await asyncio.sleep(0)  # the link may have room for all pieces: let others send theirs
        return True

    def _assemble(self, sender: str, message: Publish) -> tuple[int, str] | None:
        """Add a piece, which must be the next of its text; returns number and text if complete.

        Raises:
            KeyError: A field is missing.
            TypeError: It is not a JSON object, or a field has a wrong type.
            ValueError: The piece is out of order or too large, or a field is not valid.
        """
        if not isinstance(message.payload, str):
            raise TypeError("it is bytes, not a JSON object")
        body = load(message.payload)
        number, index, of, piece = int(body["number"]), body["index"], body["of"], body["text"]
        if message.event != "ask" and not self._is_asked(sender, number):
            return None  # no caller waits for this answer any more
        most = MAX_QUESTION if message.event == "ask" else MAX_ANSWER
        kept = self._kept.setdefault(sender, StoredTexts())
        name = message.event, number
        pieces = kept.drop(name)
        if index != len(pieces) or not 0 < of <= -(-most // PIECE) or len(piece) > PIECE:
            raise ValueError("a piece is out of order or too large")
        pieces.append(piece)
        if len(pieces) < of:
            kept.keep(name, pieces)
            return None
        return number, "".join(pieces)

    def _forget_partial(self, name: str, number: int) -> None:
        """Remove the received pieces of an answer after its question has ended."""
        if name in self._kept:
            self._kept[name].drop(("answer", number))


def _size_of(answer: Question) -> int:
    """Approximate number of characters of an encoded answer."""
    lists = [value for value in answer.values() if isinstance(value, list)]
    return sum(len(text) for texts in lists for text in texts)
