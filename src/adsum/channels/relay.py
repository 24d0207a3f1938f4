"""A question from one node to another, and its answer, over the cluster's messages.

Long polling needs it: each request of a client may reach another worker than the one before. Texts
pass in pieces. An answer that does not come counts as none.

Texts share the links with broadcasts and changes, and clients decide on their number and size. So
to each node one piece is under way at a time, which is queued like a broadcast, and texts take
turns with their pieces. Long texts are bounded together: a question waits for room until its answer
has come, an answer until it is sent. The node that is asked bounds what each sender has it keep,
and keeps no answer that it did not ask for.
"""

import asyncio
import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from adsum.activetime import active_timeout
from adsum.node import Node
from adsum.pubsub import RESERVED
from adsum.quoting import printable
from adsum.replication.jsontext import dump, load
from adsum.replication.messages import Publish
from adsum.sparselog import SparseLogger, error_text
from adsum.tasks import cancel_task, resolve, start_task

logger = logging.getLogger("adsum")

Question = dict[str, Any]

TOPIC = f"{RESERVED}channels/relay"
#: The answer of a node that keeps too much already.
_NO_ROOM = {"room": False}
#: Characters in a piece: as JSON in JSON it may double, and has to fit into a message.
_PIECE = 80 * 1024
#: Characters of one question, and of one answer. An answer may be one presence state, see
#: `sessions.MAX_STATE`, in which every character doubles.
MAX_QUESTION, MAX_ANSWER = 8 * 1024 * 1024, 41 * 1024 * 1024
#: Characters of all long texts on their way to one node, or one longer text. Shorter texts than a
#: piece do not wait for room.
MAX_UNDER_WAY = 8 * 1024 * 1024
#: Characters of the questions of one node that are incomplete, or not answered.
MAX_KEPT = 32 * 1024 * 1024
#: Seconds that a question or an answer waits for room.
ROOM_PATIENCE = 5.0
#: Seconds between two looks at whether those who are asked still live.
_LOOK_INTERVAL = 0.5


class TooLongError(Exception):
    """A question is longer than `MAX_QUESTION`."""


class NoRoomError(Exception):
    """Too much is on its way to a node already, or kept there."""


class _Lane:
    """The way to one node: long texts have a bound, and all texts take turns piece by piece."""

    def __init__(self) -> None:
        #: Texts that are or wait in it.
        self.users = 0
        #: Held while a piece is handed to the link.
        self.turn = asyncio.Lock()
        # Held by the first text that waits for room, so that none overtakes it.
        self._first = asyncio.Lock()
        self._under_way = 0
        self._room = asyncio.Event()

    @asynccontextmanager
    async def room(self, size: int) -> AsyncIterator[None]:
        """Wait until there is room for a text, and occupy it.

        Raises:
            NoRoomError: There was none for `ROOM_PATIENCE`.
        """
        if size <= _PIECE:
            yield
            return
        try:
            async with active_timeout(ROOM_PATIENCE), self._first:
                while self._under_way and self._under_way + size > MAX_UNDER_WAY:
                    self._room.clear()
                    await self._room.wait()
                self._under_way += size
        except TimeoutError:
            raise NoRoomError from None
        try:
            yield
        finally:
            self._under_way -= size
            self._room.set()


class _Kept:
    """The texts of one sender that are incomplete, and its questions that are not answered."""

    def __init__(self) -> None:
        # The oldest first.
        self.partial: dict[tuple[str, int], list[str]] = {}
        #: Characters of incomplete questions, and of those that are not answered.
        self.incomplete = self.unanswered = 0

    @property
    def empty(self) -> bool:
        """Whether nothing is kept."""
        return not self.partial and not self.unanswered

    def drop(self, name: tuple[str, int]) -> list[str]:
        """Forget an incomplete text; returns its pieces."""
        pieces = self.partial.pop(name, [])
        if name[0] == "ask":
            self.incomplete -= sum(map(len, pieces))
        return pieces

    def keep(self, name: tuple[str, int], pieces: list[str]) -> None:
        """Keep an incomplete text. The oldest questions make room: their senders gave them up."""
        self.partial[name] = pieces
        if name[0] != "ask":
            return
        self.incomplete += sum(map(len, pieces))
        while self.incomplete > MAX_KEPT:
            self.drop(next(one for one in self.partial if one[0] == "ask"))


class Relay(ABC):
    """See the module. There is one for a node.

    Args:
        node: The node whose cluster to ask.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._log = SparseLogger(logger)
        # What was asked and is not answered: of which life of which node.
        self._waiting: dict[int, tuple[tuple[str, int], asyncio.Future[Question | None]]] = {}
        # The next look at whether those who are asked still live; there is one while any is.
        self._look: asyncio.TimerHandle | None = None
        # By name of a node: the way there, and what is kept of what it has sent.
        self._lanes: dict[str, _Lane] = {}
        self._kept: dict[str, _Kept] = {}
        # What answers is for a life of a node, if that was known.
        self._tasks: dict[asyncio.Task[None], tuple[str, int | None]] = {}
        node.observe(self)

    async def ask(self, name: str, question: Question, patience: float) -> Question | None:
        """Ask a node; None if there is no such node, or it dies, or does not answer in time.

        Raises:
            TooLongError: The question is too long.
            NoRoomError: Too much is on its way to this node, or it keeps too much for this one.
        """
        life = self.lives().get(name)
        if life is None:
            return None
        text = dump(question)
        if len(text) > MAX_QUESTION:
            raise TooLongError
        # Not counted: a late answer to a former life of this node, or to one of its parent process,
        # would be taken for the answer to another question.
        number = secrets.randbits(62)
        future: asyncio.Future[Question | None] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (name, life), future
        self._look_later()
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

    @abstractmethod
    async def answer(self, question: Question) -> Question:
        """Answer what another node asks."""

    @abstractmethod
    def lost(self, question: Question) -> None:
        """The node that asked cannot be sent the answer."""

    def changed(self, topic: str, transitions: list[Any]) -> None:  # noqa: B027  # of no concern
        """See `Observer`."""

    def delivered(self, sender: str, message: Publish) -> None:
        """See `Observer`."""
        if message.topic != TOPIC:
            return
        try:
            whole = self._assemble(sender, message)
            if whole is not None:
                self._received(sender, message.event, *whole)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            text = "%s sent what is no question and no answer: %s"
            self._log.warning(text, printable(sender, 255), error_text(error), key=sender)

    def closed(self) -> None:
        """See `Observer`: nobody answers any more."""
        self._log.flush()
        if self._look is not None:
            self._look.cancel()
            self._look = None
        waiting, self._waiting = self._waiting, {}
        answering, self._tasks = self._tasks, {}
        self._lanes, self._kept = {}, {}
        for _, future in waiting.values():
            resolve(future)
        for task in answering:
            cancel_task(task)

    def forked(self) -> None:
        """See `Observer`."""
        self._waiting, self._look, self._tasks = {}, None, {}
        self._lanes, self._kept = {}, {}

    def _look_later(self) -> None:
        if self._look is None and (self._waiting or self._tasks):
            loop = asyncio.get_running_loop()
            self._look = loop.call_later(_LOOK_INTERVAL, self._look_after_them)

    def _look_after_them(self) -> None:
        """Wait no longer for those who have died, and for nothing that they have asked for."""
        self._look = None
        if not self._node.running:
            return
        lives = self.lives()
        for name, kept in list(self._kept.items()):
            if kept.empty or name not in lives:
                del self._kept[name]
        for (name, life), future in self._waiting.values():
            if lives.get(name) != life:
                resolve(future)
        for task, (name, own) in self._tasks.items():
            if own is not None and lives.get(name) != own:
                task.cancel()
        self._look_later()

    def lives(self) -> dict[str, int]:
        """The other nodes that live, as far as is known, each with its incarnation."""
        alive = ("up", "suspect")
        members = self._node.members() if self._node.running else []
        return {one.name: one.incarnation for one in members if one.status in alive}

    def _received(self, sender: str, event: str, number: int, text: str) -> None:
        if event == "ask":
            kept = self._kept.setdefault(sender, _Kept())
            work = (
                self._reply(sender, number, dict(load(text)))
                if kept.unanswered + len(text) <= MAX_KEPT
                else self._refuse(sender, number)
            )
            kept.unanswered += len(text)
            task = start_task(work)
            self._tasks[task] = sender, self.lives().get(sender)
            task.add_done_callback(partial(self._answered, kept, len(text)))
            self._look_later()
        elif self._is_asked(sender, number):
            resolve(self._waiting[number][1], dict(load(text)))

    def _is_asked(self, name: str, number: int) -> bool:
        """Whether a question to a node waits for its answer."""
        return number in self._waiting and self._waiting[number][0][0] == name

    def _answered(self, kept: _Kept, size: int, task: "asyncio.Task[None]") -> None:
        kept.unanswered -= size
        self._tasks.pop(task, None)

    async def _refuse(self, sender: str, number: int) -> None:
        text = "%s asks more than can be answered"
        self._log.warning(text, printable(sender, 255), key=sender)
        async with self._lane(sender) as lane:
            await self._send(lane, sender, "answer", number, dump(_NO_ROOM))

    async def _reply(self, sender: str, number: int, question: Question) -> None:
        try:
            answer = await self.answer(question)
        except Exception as error:
            shown = printable(sender, 255)
            self._log.crashed("a question of %s could not be answered", shown, error=error)
        else:
            if not await self._send_answer(sender, number, answer):
                self.lost(question)

    async def _send_answer(self, name: str, number: int, answer: Question) -> bool:
        """Send an answer; it is put into text when there is room for it."""
        try:
            async with self._lane(name) as lane, lane.room(_size_of(answer)):
                text = dump(answer)
                return len(text) <= MAX_ANSWER and await self._send(
                    lane, name, "answer", number, text
                )
        except NoRoomError:
            return False

    @asynccontextmanager
    async def _lane(self, name: str) -> AsyncIterator[_Lane]:
        """The way to a node; it is forgotten when nobody uses it."""
        lane = self._lanes.setdefault(name, _Lane())
        lane.users += 1
        try:
            yield lane
        finally:
            lane.users -= 1
            if not lane.users and self._lanes.get(name) is lane:
                del self._lanes[name]

    async def _send(self, lane: _Lane, name: str, event: str, number: int, text: str) -> bool:
        """Send a text in pieces, each once the link has room; whether all are on their way."""
        of = -(-len(text) // _PIECE)
        for index in range(of):
            piece = text[index * _PIECE : (index + 1) * _PIECE]
            body = {"number": number, "index": index, "of": of, "text": piece}
            message = Publish(TOPIC, event, dump(body))
            async with lane.turn:
                if not self._node.running or await self._node.runtime.publish(message, name):
                    return False
        return True

    def _assemble(self, sender: str, message: Publish) -> tuple[int, str] | None:
        """The text that a piece completes; pieces of one text come in order."""
        body = load(message.payload)
        number, index, of, piece = int(body["number"]), body["index"], body["of"], body["text"]
        if message.event != "ask" and not self._is_asked(sender, number):
            return None  # nobody waits for it any more
        most = MAX_QUESTION if message.event == "ask" else MAX_ANSWER
        kept = self._kept.setdefault(sender, _Kept())
        name = message.event, number
        pieces = kept.drop(name)
        if index != len(pieces) or not 0 < of <= -(-most // _PIECE) or len(piece) > _PIECE:
            raise ValueError("a piece that does not fit")
        pieces.append(piece)
        if len(pieces) < of:
            kept.keep(name, pieces)
            return None
        return number, "".join(pieces)

    def _forget_partial(self, name: str, number: int) -> None:
        """Forget the part of an answer that has come, if it is waited for no longer."""
        if name in self._kept:
            self._kept[name].drop(("answer", number))


def _size_of(answer: Question) -> int:
    """About how many characters an answer has as text."""
    lists = [value for value in answer.values() if isinstance(value, list)]
    return sum(len(text) for texts in lists for text in texts)
