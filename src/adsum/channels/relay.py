"""A question from one node to another, and its answer, over the cluster's messages.

Long polling needs it: each request of a client may reach another worker than the one before. Texts
of any size pass, in pieces. An answer that does not come counts as none.
"""

import asyncio
import logging
import secrets
from abc import ABC, abstractmethod
from typing import Any

from adsum.activetime import active_timeout
from adsum.node import Node
from adsum.pubsub import RESERVED
from adsum.replication.jsontext import dump, load
from adsum.replication.messages import Publish
from adsum.tasks import cancel_task, resolve, start_task

logger = logging.getLogger("adsum")

Question = dict[str, Any]

TOPIC = f"{RESERVED}channels/relay"
#: Characters in a piece: as JSON in JSON it may double, and has to fit into a message.
_PIECE = 80 * 1024
#: Pieces of one text, and of all texts together of which pieces are missing, at most.
_MAX_PIECES, _MAX_HELD = 256, 1024
#: Seconds between two looks at whether those who are asked still live.
_LOOK_INTERVAL = 0.5


class Relay(ABC):
    """See the module. There is one for a node.

    Args:
        node: The node whose cluster to ask.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        # What was asked and is not answered: of which life of which node.
        self._waiting: dict[int, tuple[tuple[str, int], asyncio.Future[Question | None]]] = {}
        # The next look at whether those who are asked still live; there is one while any is.
        self._look: asyncio.TimerHandle | None = None
        # The pieces that have come, by sender, event and number; the oldest are dropped.
        self._partial: dict[tuple[str, str, int], list[str]] = {}
        # What answers is for a life of a node, if that was known.
        self._tasks: dict[asyncio.Task[None], tuple[str, int | None]] = {}
        node.observe(self)

    async def ask(self, name: str, question: Question, patience: float) -> Question | None:
        """Ask a node; None if there is no such node, or it dies, or does not answer in time."""
        life = self._lives().get(name)
        if life is None:
            return None
        # Not counted: a late answer to a former life of this node, or to one of its parent process,
        # would be taken for the answer to another question.
        number = secrets.randbits(62)
        future: asyncio.Future[Question | None] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (name, life), future
        self._look_later()
        try:
            async with active_timeout(patience):
                if not await self._send(name, "ask", number, question):
                    return None
                return await future
        except TimeoutError:
            return None
        finally:
            self._waiting.pop(number, None)

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
            text = self._assemble(sender, message)
            if text is not None:
                self._received(sender, message.event, *text)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            logger.warning("%s sent what is no question and no answer: %r", sender, error)

    def closed(self) -> None:
        """See `Observer`: nobody answers any more."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
        waiting, self._waiting = self._waiting, {}
        answering, self._tasks = self._tasks, {}
        self._partial.clear()
        for _, future in waiting.values():
            resolve(future)
        for task in answering:
            cancel_task(task)

    def forked(self) -> None:
        """See `Observer`."""
        self._waiting, self._look, self._partial, self._tasks = {}, None, {}, {}

    def _look_later(self) -> None:
        if self._look is None and (self._waiting or self._tasks):
            loop = asyncio.get_running_loop()
            self._look = loop.call_later(_LOOK_INTERVAL, self._look_after_them)

    def _look_after_them(self) -> None:
        """Wait no longer for those who have died, and for nothing that they have asked for."""
        self._look = None
        if not self._node.running:
            return
        lives = self._lives()
        for (name, life), future in self._waiting.values():
            if lives.get(name) != life:
                resolve(future)
        for task, (name, own) in self._tasks.items():
            if own is not None and lives.get(name) != own:
                task.cancel()
        self._look_later()

    def _lives(self) -> dict[str, int]:
        """The nodes that live, as far as is known, each with its incarnation."""
        alive = ("up", "suspect")
        members = self._node.members() if self._node.running else []
        return {one.name: one.incarnation for one in members if one.status in alive}

    def _received(self, sender: str, event: str, number: int, value: Question) -> None:
        if event == "ask":
            task = start_task(self._reply(sender, number, value))
            self._tasks[task] = sender, self._lives().get(sender)
            task.add_done_callback(self._answered)
            self._look_later()
        else:
            (name, _), future = self._waiting.get(number, (("", 0), None))
            if future is not None and sender == name and not future.done():
                future.set_result(value)

    def _answered(self, task: "asyncio.Task[None]") -> None:
        self._tasks.pop(task, None)

    async def _reply(self, sender: str, number: int, question: Question) -> None:
        try:
            answer = await self.answer(question)
        except Exception:
            logger.exception("a question of %s could not be answered", sender)
        else:
            if not await self._send(sender, "answer", number, answer):
                self.lost(question)

    async def _send(self, name: str, event: str, number: int, value: Question) -> bool:
        """Send a text in pieces, each once the link has room; whether all are on their way."""
        text = dump(value)
        pieces = [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]
        if len(pieces) > _MAX_PIECES:
            return False
        for index, piece in enumerate(pieces):
            body = {"number": number, "index": index, "of": len(pieces), "text": piece}
            message = Publish(TOPIC, event, dump(body))
            if not self._node.running or await self._node.runtime.publish(message, name):
                return False
        return True

    def _assemble(self, sender: str, message: Publish) -> tuple[int, Question] | None:
        """The text that a piece completes, read; pieces of one sender come in order."""
        body = load(message.payload)
        number, index, of, piece = int(body["number"]), body["index"], body["of"], body["text"]
        name = sender, message.event, number
        pieces = self._partial.pop(name, [])
        if index != len(pieces) or not 0 < of <= _MAX_PIECES or len(piece) > _PIECE:
            raise ValueError("a piece that does not fit")
        pieces.append(piece)
        if len(pieces) < of:
            self._partial[name] = pieces
            while sum(map(len, self._partial.values())) > _MAX_HELD:
                del self._partial[next(iter(self._partial))]
            return None
        return number, dict(load("".join(pieces)))
