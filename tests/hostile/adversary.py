"""What a hostile member says: frames made from a seed and from what it was sent."""

import json
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any, TypeVar

from adsum.errors import ProtocolError
from adsum.replication.codec import decode, encode
from adsum.replication.entry import Change
from adsum.replication.limits import PIECE
from adsum.replication.messages import (
    Ask,
    Delta,
    Digest,
    Farewell,
    Goodbye,
    Heartbeat,
    Piece,
    ProtocolMessage,
    Publish,
    Pull,
    Sighting,
    Sync,
    Vouch,
)
from adsum.replication.state import Replica
from adsum.values.limits import MAX_DATA, MAX_META, MAX_NUMBER

T = TypeVar("T")

#: It writes where the honest ones write.
TOPICS = ("room", "hall")
KEYS = ("ann", "bob", "eve")
#: What stands where a number or a text should.
NONSENSE: tuple[Any, ...] = (-1, 2**63, 1.5, 1e300, True, None, "", "x" * 2000, [], {}, [[]], "é\n")
#: Numbers where code goes wrong.
EDGES = (0, 1, 2, 2**31, 2**53, MAX_NUMBER - 2, MAX_NUMBER - 1)


class Adversary:
    """A member that says whatever the seed has it say.

    Args:
        random: Where all that it says comes from.
        me: Who it is.
        others: Those it speaks to and of.
    """

    def __init__(self, random: Random, me: Replica, others: tuple[Replica, ...]) -> None:
        self.me = me
        self._seed = random.random()
        # Half of them say different things of one version, as nobody honest does.
        self._fickle = random.random() < 0.5
        self._random = random
        self._others = others
        self._heard: deque[bytes] = deque(maxlen=40)
        self._asked: deque[Sync] = deque(maxlen=40)
        self._invented = [Replica(f"ghost {number}", number) for number in range(1, 6)]
        # How far its own slice has got, and a transfer of it that is under way, so that much of
        # what it says of it fits.
        self._version = self._staged = 0
        # Counters that grow are believed.
        self._counter = 0
        # Numbers beyond all bounds leave nothing more to say of a slice, so not each run has them.
        self._bold = random.random() < 0.5
        # What this one is inclined to do: a run that does everything does nothing often enough
        # (swarm testing: Groce et al. 2012).
        self._acts = self._incline(
            self._speak, self._speak, self._garble, self._damage, self._repeat, self._shuffle
        )
        self._subjects = self._incline(
            self._next_delta,
            self._staged_delta,
            self._odd_delta,
            self._foreign_delta,
            self._answer,
            self._digest,
            self._heartbeat,
            self._sync,
            self._aside,
        )

    def hear(self, frame: bytes) -> None:
        """Remember what it was sent, to say it again, and what it was asked."""
        self._heard.append(frame)
        message = decode(frame)
        if isinstance(message, Sync):
            self._asked.append(message)

    def frames(self) -> list[bytes]:
        """What it says next."""
        act = self._babble if self._chance(0.03) else self._random.choice(self._acts)
        return act()

    def _incline(self, *choices: Callable[[], T]) -> list[Callable[[], T]]:
        weights = [self._random.choice([0, 1, 1, 5]) for _ in choices]
        return [
            choice for choice, weight in zip(choices, weights, strict=True) for _ in range(weight)
        ] or [*choices]

    # Ways to say something.

    def _speak(self) -> list[bytes]:
        return [encode(self._message()) for _ in range(self._random.choice([1, 3, 8]))]

    def _garble(self) -> list[bytes]:
        """A frame with one field replaced, somewhere in it."""
        line, *data = self._genuine().split(b"\n", 1)  # bytes follow the line of a piece
        fields = json.loads(line)
        self._replace_one(fields)
        return [b"\n".join([json.dumps(fields, separators=(",", ":")).encode(), *data])]

    def _damage(self) -> list[bytes]:
        frame = bytearray(self._genuine())
        for _ in range(self._random.randint(1, 4)):
            frame[self._random.randrange(len(frame))] = self._random.randrange(256)
        return [bytes(frame[: self._random.choice([len(frame), self._random.randrange(400)])])]

    def _repeat(self) -> list[bytes]:
        return [self._genuine()] * self._random.randint(1, 4)

    def _shuffle(self) -> list[bytes]:
        frames = list(self._heard)
        return self._random.sample(frames, len(frames))

    def _babble(self) -> list[bytes]:
        return [self._random.randbytes(self._random.choice([0, 1, 10, 1000]))]

    def _genuine(self) -> bytes:
        if self._heard and self._chance(0.5):
            return self._random.choice(self._heard)
        return encode(self._message())

    def _replace_one(self, fields: list[Any]) -> None:
        at = self._random.randrange(len(fields))
        if isinstance(fields[at], list) and fields[at] and self._random.random() < 0.8:
            self._replace_one(fields[at])
        elif self._random.random() < 0.5 and type(fields[at]) is int:
            fields[at] = self._number(fields[at])
        else:
            fields[at] = self._random.choice(NONSENSE)

    # What it says.

    def _message(self) -> ProtocolMessage:
        return self._random.choice(self._subjects)()

    def _aside(self) -> ProtocolMessage:
        """What is not about slices. A goodbye is rare: whoever said it is not listened to."""
        if self._chance(0.02):
            linger = self._random.choice([0.0, 2.0, 3600.0])
            return Goodbye(self._number(), self._number(self._version), linger)
        asides: list[ProtocolMessage] = [
            Ask(self._somebody()),
            Vouch(self._somebody(), self._number()),
            Pull((self._somebody(), self._somebody()), self._random.random() < 0.5),
            Publish(self._random.choice(TOPICS), "event", "{}"),
            self._piece(),
        ]
        return self._random.choice(asides)

    def _piece(self) -> Piece:
        """Of few messages, so that some continue one another."""
        size = self._random.choice([0, 5, PIECE, PIECE + 5, 2 * PIECE, MAX_DATA])
        offset = PIECE * self._random.randrange(max(1, min(3, -(-size // PIECE))))
        number, topic = self._random.randrange(3), self._random.choice(TOPICS)
        return Piece(number, topic, "event", size, offset, bytes(min(PIECE, size - offset)))

    def _heartbeat(self) -> Heartbeat:
        fingerprints = self._random.randrange(2**24), self._random.choice([0, 1])
        return Heartbeat(self._number(), self._number(self._version), *fingerprints)

    def _sync(self) -> Sync:
        after = self._random.choice([0, 0, self._number(5)])
        return Sync(self._somebody(), after, self._random.random() < 0.5)

    def _digest(self) -> Digest:
        count = self._random.choice([0, 1, 3, 8])
        sightings = [self._sighting(self._somebody()) for _ in range(count)]
        count = self._random.choice([0, 0, 1, 3])
        farewells = [self._farewell(self._somebody()) for _ in range(count)]
        return Digest(tuple(sightings), tuple(farewells), self._random.random() < 0.5)

    def _farewell(self, replica: Replica) -> Farewell:
        remaining = self._random.choice([0.0, 0.5, 5.0, 3600.0])
        counter = self._number(1000) if self._chance(0.5) else MAX_NUMBER - 1
        return Farewell(replica, counter, self._number(5), remaining, self._number(5))

    def _sighting(self, replica: Replica) -> Sighting:
        addresses = self._random.choice([(), (), ("10.0.0.1:1",), ("\U0001f600" * 300,) * 16])
        self._counter += 1
        counter = self._counter if self._chance(0.7) else self._number()
        return Sighting(replica, counter, self._number(5), addresses)

    def _next_delta(self) -> Delta:
        """The next changes of its own slice."""
        delta = self._delta(self.me, self._version, last=True, reset=False)
        self._version = delta.upto if delta.upto < MAX_NUMBER - 1 else self._version
        return delta

    def _staged_delta(self) -> Delta:
        """A part of a transfer of its own slice."""
        last = self._chance(0.25)
        delta = self._delta(self.me, self._staged, last=last, reset=self._chance(0.1))
        self._staged = delta.upto if delta.upto < MAX_NUMBER - 1 else self._staged
        if last:
            self._version = max(self._version, self._staged)
            self._staged = self._random.choice([0, self._version])
        return delta

    def _odd_delta(self) -> Delta:
        """Of its own slice, but not what should come next."""
        return self._delta(self.me, self._number(self._version))

    def _answer(self) -> Delta:
        """What it was asked for: of a slice that it invented, it may say anything."""
        if not self._asked:
            return self._next_delta()
        asked = self._asked.pop()
        return self._delta(asked.replica, asked.after, last=self._chance(0.8), reset=False)

    def _foreign_delta(self) -> Delta:
        return self._delta(self._somebody(), self._random.choice([0, 1, 2, self._number(5)]))

    def _delta(
        self, replica: Replica, after: int, *, last: bool | None = None, reset: bool | None = None
    ) -> Delta:
        changes: list[Change] = []
        version = after
        for _ in range(self._random.choice([0, 1, 1, 3, 10])):
            version = min(version + self._random.choice([1, 1, 1, 4]), MAX_NUMBER - 1)
            if not changes or changes[-1][0] < version:
                changes.append(self._change(replica, version))
        upto = min(version + self._random.choice([0, 0, 0, 1, 7]), MAX_NUMBER - 1)
        if self._bold and self._chance(0.02):
            upto = MAX_NUMBER - 1
        reset = self._chance(0.25) if reset is None else reset
        last = self._chance(0.6) if last is None else last
        return Delta(replica, after, upto, tuple(changes), reset=reset, last=last)

    def _change(self, replica: Replica, version: int) -> Change:
        """What happened at a version, which is what it said before unless it is fickle."""
        variant = self._random.randrange(100) if self._fickle and self._chance(0.5) else 0
        random = Random(f"{self._seed} {replica} {version} {variant}")
        id = max(0, version - random.choice([0, 0, 0, 1, 2, 5]))
        if random.random() < 0.25:
            return version, id
        large = random.random() < 0.01
        meta = '{"x":"' + "\\\\" * (MAX_META // 2 - 5) + '"}' if large else "{}"
        previous = version - 1 if version > 1 and random.random() < 0.3 else None
        return version, id, random.choice(TOPICS), random.choice(KEYS), meta, previous, *replica

    def _somebody(self) -> Replica:
        known = self._random.choice([*self._others, *self._others, self.me, *self._invented])
        if self._chance(0.15):
            life = known.incarnation + self._random.choice([-1, 1, 2, 3])
            return Replica(known.name, max(0, life))  # another life of it
        return known

    def _number(self, near: int = 1) -> int:
        if not self._bold or self._chance(0.8):
            return max(0, min(near + self._random.randint(-3, 3), MAX_NUMBER - 1))
        return self._random.choice(EDGES)

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability


def message_in(frame: bytes) -> ProtocolMessage | None:
    """What a frame says, if it is one at all."""
    with suppress(ProtocolError):
        return decode(frame)
    return None
