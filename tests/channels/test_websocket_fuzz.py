"""Random frames, cut at random places: both protocol classes answer alike, and as was computed.

A script is a function of its seed, which is the parameter of the test: `pytest -k "[channels-17]"`
plays one again. Each burst of valid frames is followed by a wait for its answers, so that an
invalid frame never arrives in one piece with a message before it; uvicorn drops such a message.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

import pytest

from tests.support.effort import scaled

from .conformance_servers import MAX_SIZE, ConformanceServer, Peer, conformance_server
from .raw_websocket import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    Deflate,
    RawFrame,
    close_payload,
    fragments,
)

OFFER = "permessage-deflate; client_max_window_bits"
#: Sizes of contents: mostly small, and about those where the encoding of the length changes.
SIZES = [0, 1, 2, 3, 10, 10, 50, 90, 95, 98, 100, 122, 125, 500, 510, 2040, 2050, 20_000]
#: Violations of the protocol that are valid nowhere, and the codes with which they are answered.
VIOLATIONS: list[tuple[bytes, int]] = [
    (RawFrame(3).encode(), 1002),
    (RawFrame(15, b"payload").encode(), 1002),
    (RawFrame(PING, rsv=RSV2).encode(), 1002),
    (RawFrame(PONG, rsv=RSV1).encode(), 1002),
    (RawFrame(TEXT, b"[]", rsv=RSV3).encode(), 1002),
    (RawFrame(TEXT, b"[]").encode(mask=None), 1002),
    (RawFrame(PING).encode(mask=None), 1002),
    (RawFrame(PING, b"x" * 126).encode(), 1002),
    (RawFrame(PING, b"x", fin=False).encode(), 1002),
    (RawFrame(CLOSE, b"x").encode(), 1002),
    (RawFrame(CLOSE, close_payload(1005)).encode(), 1002),
    (RawFrame(CLOSE, close_payload(1000, b"\xff")).encode(), 1007),
    (bytes([0x82, 0xFF]) + (MAX_SIZE + 1).to_bytes(8, "big"), 1009),
    (bytes([0x80, 0xFF]) + (MAX_SIZE + 1).to_bytes(8, "big"), 1009),
]


@dataclass
class Burst:
    """Bytes of valid frames, in the pieces in which they are sent, and their answers in order."""

    pieces: list[bytes] = field(default_factory=list)
    contents: list[str | bytes] = field(default_factory=list)
    pongs: list[bytes] = field(default_factory=list)


@dataclass
class Script:
    """All that a client sends.

    Attributes:
        deflate: Whether it offers compression.
        bursts: Valid frames.
        last: The pieces that end the connection.
        code: The code of the close that answers; None if there is none.
    """

    deflate: bool
    bursts: list[Burst]
    last: list[bytes]
    code: int | None


def script(seed: int, peer: Peer) -> Script:
    """The script of a seed, in messages of an application."""
    random = Random(seed)
    deflate = Deflate(resets=False) if random.random() < 0.5 else None
    bursts = [burst(random, peer, deflate) for _ in range(random.randint(0, 5))]
    last, code = ending(random, peer, deflate)
    return Script(deflate is not None, bursts, cut(random, last), code)


def burst(random: Random, peer: Peer, deflate: Deflate | None) -> Burst:
    """Messages whole and in fragments, with control frames between and within."""
    made = Burst()
    data = []
    for _ in range(random.randint(1, 12)):
        if random.random() < 0.6:
            content = random_content(random)
            made.contents.append(content)
            for frame in random_message(random, peer, content, deflate):
                data += [frame.encode(), *control_frames(random, made)]
        else:
            data += control_frames(random, made)
    made.pieces = cut(random, b"".join(data))
    return made


def random_content(random: Random) -> str | bytes:
    size = random.choice(SIZES) + random.randint(0, 3)
    if random.random() < 0.5:
        return random.randbytes(size)
    return "".join(random.choices('abc €\U0001f600\\"\n', k=size))


def random_message(
    random: Random, peer: Peer, content: str | bytes, deflate: Deflate | None
) -> list[RawFrame]:
    """The frames of a message, perhaps compressed, perhaps in fragments."""
    message = peer.app.message(content)
    if deflate is not None and random.random() < 0.7:
        message = deflate.compress(message)
    size = len(message.payload)
    cuts = sorted(random.randint(0, size) for _ in range(random.choice([0, 0, 0, 1, 2, 5])))
    return fragments(message.opcode, message.payload, *cuts, rsv=message.rsv)


def control_frames(random: Random, made: Burst) -> Iterator[bytes]:
    """No frames, or some pings and pongs."""
    while random.random() < 0.2:
        payload = random.randbytes(random.choice([0, 1, 4, 125]))
        opcode = random.choice([PING, PONG])
        if opcode == PING:
            made.pongs.append(payload)
        yield RawFrame(opcode, payload).encode()


def cut(random: Random, data: bytes) -> list[bytes]:
    """Bytes cut at random places: rarely after each byte, often not at all."""
    count = random.choice([0, 0, 1, 2, 5, 20, 100])
    if count == 100 and len(data) < 200:
        edges = list(range(len(data) + 1))
    else:
        edges = sorted({0, len(data), *(random.randint(0, len(data)) for _ in range(count))})
    return [data[start:end] for start, end in pairwise(edges)]


def ending(random: Random, peer: Peer, deflate: Deflate | None) -> tuple[bytes, int | None]:
    """The bytes that end the connection, perhaps within a message, and the code of the answer."""
    begun = RawFrame(random.choice([TEXT, BINARY]), b"[", fin=False).encode()
    after = RawFrame(PING, b"after").encode() * random.randint(0, 2)
    way = random.randint(0, 7)
    if way == 0:
        return close_of_client(random) + after, None
    if way == 1:  # a text that is not UTF-8, whole or in fragments
        payload = peer.app.message("xx\x01").payload.replace(b"\\u0001", b"\xc0")
        message = RawFrame(TEXT, payload.replace(b"\x01", b"\xc0"))
        if deflate is not None and random.random() < 0.5:
            message = deflate.compress(message)
        pieces = fragments(TEXT, message.payload, *random.choice([(), (1,)]), rsv=message.rsv)
        return b"".join(piece.encode() for piece in pieces), 1007
    if way == 2:
        return begun + RawFrame(random.choice([TEXT, BINARY]), b"]").encode() + after, 1002
    if way == 3:
        return RawFrame(CONT, b"[").encode() + after, 1002
    data, code = random.choice(VIOLATIONS)
    return begun * random.randint(0, 1) + data + after, code


def close_of_client(random: Random) -> bytes:
    code = random.choice([None, 1000, 1001, 3000, 4999])
    return RawFrame(CLOSE, b"" if code is None else close_payload(code, "bye")).encode()


async def play(server: ConformanceServer, seed: int, transcript: list[RawFrame]) -> None:
    """Play a script; adds the last frame of the server, which its seed does not determine."""
    peer = Peer(server)
    played = script(seed, peer)
    peer.deflate = Deflate(resets=False) if played.deflate else None
    try:
        await peer.open(OFFER if played.deflate else None)
        for one in played.bursts:
            await peer.client.send(*one.pieces)
            answers = [await peer.read() for _ in one.contents + one.pongs]
            pongs = [frame.payload for frame in answers if frame.opcode == PONG]
            messages = [frame for frame in answers if frame.opcode != PONG]
            assert pongs == one.pongs
            assert [peer.app.content(frame) for frame in messages] == one.contents
        await peer.client.send(*played.last)
        frame = await peer.read()
        assert frame.opcode == CLOSE
        assert played.code is None or frame.payload[:2] == close_payload(played.code)
        transcript.append(frame)
        await peer.is_closed()
        code = int.from_bytes(frame.payload[:2], "big") or 1005
        await peer.app.has_ended(code, frame.payload[2:].decode())
    finally:
        await peer.leave()


@pytest.fixture(scope="module", params=["echo", "channels"])
def both(request: pytest.FixtureRequest) -> Iterator[list[ConformanceServer]]:
    name = request.param
    with conformance_server(name) as plain, conformance_server(f"{name}-direct") as direct:
        yield [plain, direct]


@pytest.mark.parametrize("seed", range(scaled(40)))
def test_random_frames_have_equal_answers_under_both_classes(
    both: list[ConformanceServer], seed: int
) -> None:
    transcript: list[RawFrame] = []
    for server in both:
        server.run(play(server, seed, transcript))
    plain, direct = transcript
    assert plain == direct
