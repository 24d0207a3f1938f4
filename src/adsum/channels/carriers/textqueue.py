"""The texts between two nodes: the send queue to a node, and the texts stored for one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from adsum.activetime import active_timeout

#: Characters in a piece: it may double as JSON within JSON, and must fit into a message.
PIECE = 80 * 1024
#: Characters of all long texts in flight to one node, or one longer text. Texts of at most one
#: piece do not wait for room.
MAX_IN_FLIGHT_TEXTS = 8 * 1024 * 1024
#: Characters of the questions stored for one sender: of incomplete ones, and of unanswered ones.
MAX_STORED_QUESTIONS = 32 * 1024 * 1024
#: Seconds that a question or an answer waits for room.
ROOM_PATIENCE = 5.0


class NoRoomError(Exception):
    """Too much is in flight to a node, or stored there."""


class TextQueue:
    """Send queue to one node: bounds the long texts, and sends all texts piece by piece in turn."""

    def __init__(self) -> None:
        #: Number of texts that are being sent or wait for room.
        self.users = 0
        #: Held while a piece is passed to the link.
        self.turn = asyncio.Lock()
        # Held by the first text that waits for room, so that no other overtakes it.
        self._first = asyncio.Lock()
        self._under_way = 0
        self._room = asyncio.Event()

    @asynccontextmanager
    async def room(self, size: int) -> AsyncIterator[None]:
        """Wait until there is room for a text of `size` characters, and occupy it in the block.

        Raises:
            NoRoomError: There was no room within `ROOM_PATIENCE`.
        """
        if size <= PIECE:
            yield
            return
        try:
            async with active_timeout(ROOM_PATIENCE), self._first:
                while self._under_way and self._under_way + size > MAX_IN_FLIGHT_TEXTS:
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


class StoredTexts:
    """Incomplete texts of one sender, and the size of its unanswered questions."""

    def __init__(self) -> None:
        # Pieces of incomplete texts by event and number, the oldest text first.
        self.partial: dict[tuple[str, int], list[str]] = {}
        #: Characters of incomplete questions, and of unanswered ones.
        self.incomplete = self.unanswered = 0

    def accepts(self, size: int) -> bool:
        """Whether one more question of `size` characters may be unanswered."""
        return self.unanswered + size <= MAX_STORED_QUESTIONS

    @property
    def empty(self) -> bool:
        """Whether nothing is stored."""
        return not self.partial and not self.unanswered

    def drop(self, name: tuple[str, int]) -> list[str]:
        """Remove an incomplete text; returns its pieces, an empty list if there are none."""
        pieces = self.partial.pop(name, [])
        if name[0] == "ask":
            self.incomplete -= sum(map(len, pieces))
        return pieces

    def keep(self, name: tuple[str, int], pieces: list[str]) -> None:
        """Store an incomplete text; drops the oldest questions beyond `MAX_STORED_QUESTIONS`."""
        self.partial[name] = pieces
        if name[0] != "ask":
            return
        self.incomplete += sum(map(len, pieces))
        while self.incomplete > MAX_STORED_QUESTIONS:
            self.drop(next(one for one in self.partial if one[0] == "ask"))
