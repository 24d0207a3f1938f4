"""Frames with tags: what comes out is a prefix of what went in, whatever was done in between."""

import hashlib
import hmac
import itertools
import json
import random
from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from adsum.errors import ProtocolError
from adsum.transport.contract import NodeIdentity
from adsum.transport.frame_mac import TAG_BYTES, FrameMac
from adsum.transport.framing import (
    CLOSE,
    FRAME_LIMIT,
    HELLO,
    PAYLOAD,
    FrameReader,
    encode_frame,
    encode_payload,
)
from adsum.transport.handshake import Handshake
from tests.support.effort import examples

from .test_framing import cut
from .test_handshake import SECRET, acceptor, dialler, frame, shake

KEY, OTHER_KEY = bytes(range(32)), bytes(32)
BODIES = [b"first", b"second " * 300, b"", b"fourth"]

Frames = list[tuple[int, bytes]]


def tagged_frames(bodies: list[bytes], key: bytes = KEY) -> list[bytes]:
    """Each frame with its tag, as one end sends them."""
    mac = FrameMac(key)
    frames = [encode_payload(body) for body in bodies]
    return [each + mac.tag(each) for each in frames]


def received(chunks: list[bytes], key: bytes = KEY) -> tuple[Frames, bool]:
    """The frames that a receiver takes, and whether it ended the link for an error."""
    reader = FrameReader(FRAME_LIMIT)
    reader.mac = FrameMac(key)
    taken = []
    try:
        for chunk in chunks:
            reader.feed(chunk)
            while (each := reader.take()) is not None:
                taken.append(each)
    except ProtocolError:
        return taken, True
    return taken, False


SENT = tagged_frames(BODIES)
GENUINE, _ = received(SENT)


@given(st.lists(st.integers(min_value=0), max_size=20))
def test_genuine_frames_are_accepted_in_any_chunks(at: list[int]) -> None:
    assert received(cut(b"".join(SENT), at)) == (GENUINE, False)
    assert len(GENUINE) == len(BODIES)


def test_tag_is_keyed_blake2b_over_the_number_and_the_frame_as_sent() -> None:
    mac = FrameMac(KEY)
    for number, sent in enumerate((b"one frame", b"another")):
        expected = hashlib.blake2b(number.to_bytes(8, "big") + sent, digest_size=16, key=KEY)
        assert mac.tag(sent) == expected.digest()


def flipped(stream: bytes, at: int, mask: int = 1) -> bytes:
    altered = bytearray(stream)
    altered[at] ^= mask
    return bytes(altered)


#: What happens on the way, and how many frames come out.
ATTACKS: dict[str, tuple[Callable[[list[bytes]], list[bytes]], int]] = {
    "replay": (lambda f: [f[0], f[0], *f[1:]], 1),
    "reorder": (lambda f: [f[0], f[2], f[1], f[3]], 1),
    "drop": (lambda f: [f[0], *f[2:]], 1),
    "drop the first": (lambda f: f[1:], 0),
    "flip in the length": (lambda f: [f[0], flipped(f[1], 3), *f[2:]], 1),
    "flip in the kind": (lambda f: [f[0], flipped(f[1], 4, PAYLOAD ^ CLOSE), *f[2:]], 1),
    "flip in the body": (lambda f: [flipped(f[0], 5), *f[1:]], 0),
    "flip in the tag": (lambda f: [*f[:3], flipped(f[3], -1)], 3),
    "no tag": (lambda f: [f[0][:-TAG_BYTES], *f[1:]], 0),
    "forged frame": (lambda f: [f[0], encode_frame(PAYLOAD, b"x") + bytes(TAG_BYTES), *f[1:]], 1),
    "forged goodbye": (lambda f: [encode_frame(CLOSE, b"x") + bytes(TAG_BYTES), *f], 0),
    "unknown kind": (lambda f: [encode_frame(99, b"x") + bytes(TAG_BYTES), *f], 0),
    "tag of another frame": (lambda f: [f[0][:-TAG_BYTES] + f[3][-TAG_BYTES:], *f[1:]], 0),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_tampered_or_replayed_frame_ends_the_stream(attack: str) -> None:
    tamper, intact = ATTACKS[attack]

    assert received(tamper(SENT)) == (GENUINE[:intact], True)


def test_frame_of_another_key_is_refused() -> None:
    """A frame of another link, or of this end itself, was made with another key."""
    assert received(tagged_frames(BODIES, OTHER_KEY)) == ([], True)


@st.composite
def altered(draw: st.DrawFn) -> bytes:
    """A stream in which bytes were altered, or pieces lost, repeated, moved or inserted."""
    stream = bytearray(b"".join(SENT))
    edges = [0, *itertools.accumulate(map(len, SENT))]
    places = st.integers(0, len(stream)) | st.sampled_from(edges)
    for _ in range(draw(st.integers(1, 3))):
        start, end = sorted((draw(places), draw(places)))
        piece = bytes(stream[start:end])
        match draw(st.sampled_from(["alter", "lose", "repeat", "move", "insert"])):
            case "alter" if start < len(stream):
                stream[start] ^= draw(st.integers(1, 255))
            case "lose":
                del stream[start:end]
            case "repeat":
                stream[start:start] = piece
            case "move":
                del stream[start:end]
                at = draw(places)
                stream[at:at] = piece
            case _:
                stream[start:start] = draw(st.binary(min_size=1, max_size=40))
    return bytes(stream)


@examples(500)
@given(altered(), st.lists(st.integers(min_value=0), max_size=4))
def test_altered_stream_yields_a_prefix_of_the_frames_sent(stream: bytes, at: list[int]) -> None:
    """... and then an error; or the reader waits for bytes that never come, as after a cut."""
    genuine = b"".join(SENT)
    assume(stream != genuine)

    frames, failed = received(cut(stream, at))

    assert frames == GENUINE[: len(frames)]
    end = sum(map(len, SENT[: len(frames)]))
    waits = len(stream) - end < 4 + TAG_BYTES + int.from_bytes(stream[end : end + 4], "big")
    assert failed or waits


def test_random_streams_yield_nothing() -> None:
    random_bytes = random.Random(1).randbytes
    for _ in range(200):
        stream = (20).to_bytes(4, "big") + random_bytes(200)
        assert received([stream]) == ([], True)


# Who has tags, and from where on.


def macs(one: Handshake) -> tuple[FrameMac | None, FrameMac | None]:
    return one.outgoing, one.incoming


@pytest.mark.parametrize(
    ("mine", "theirs", "authenticated"),
    [(False, False, True), (True, False, True), (False, True, True), (True, True, False)],
)
def test_link_is_authenticated_unless_both_ends_are_protected(
    mine: bool, theirs: bool, authenticated: bool
) -> None:
    one, other = dialler(protected=mine), acceptor(protected=theirs)
    shake(one, other)

    assert [mac is not None for mac in macs(one) + macs(other)] == [authenticated] * 4


def test_link_without_a_secret_is_not_authenticated() -> None:
    one, other = dialler(secret=None), acceptor(secret=b"")
    shake(one, other)

    assert macs(one) + macs(other) == (None,) * 4


def test_both_ends_derive_the_same_two_keys_and_no_others() -> None:
    one, other = dialler(), acceptor()
    said = shake(one, other)
    tags = [mac.tag(b"frame") for mac in macs(one) + macs(other) if mac is not None]
    there, back = tags[:2]

    assert tags == [there, back, back, there]
    assert there != back
    for _, proof in said[2:]:
        assert FrameMac(proof).tag(b"frame") not in tags, "a proof, which all can see, is no key"


def test_keys_of_two_links_differ() -> None:
    one, other = dialler(), dialler()
    shake(one, acceptor())
    shake(other, acceptor())
    tags = [mac.tag(b"frame") for mac in macs(one) + macs(other) if mac is not None]

    assert len(set(tags)) == 4


def test_key_is_derived_as_documented() -> None:
    one, other = dialler(), acceptor()
    hellos = [body for kind, body in shake(one, other) if kind == HELLO]
    for label, mac in ((b"dialler", one.outgoing), (b"acceptor", one.incoming)):
        parts = [b"adsum key for frames of the " + label, *hellos]
        message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        key = hmac.digest(SECRET, message, "sha256")
        assert mac is not None
        assert mac.tag(b"frame") == FrameMac(key).tag(b"frame")


def test_frame_tags_begin_in_each_direction_after_its_proof() -> None:
    one, other = dialler(), acceptor()

    hello = one.start()
    answer = other.receive(*frame(hello))
    assert macs(one) == macs(other) == (None, None)
    proof = one.receive(*frame(answer))
    assert one.outgoing is not None
    assert one.incoming is None
    last = other.receive(*frame(proof))
    assert None not in macs(other)
    one.receive(*frame(last))
    assert None not in macs(one)


def test_tag_request_removed_from_a_hello_fails_the_handshake() -> None:
    """Otherwise a relay would ask for a link without tags in the name of both."""
    one, other = dialler(), acceptor()
    kind, hello = frame(one.start())
    wish = json.loads(hello)
    wish[7] = 0
    answer = other.receive(kind, json.dumps(wish, separators=(",", ":")).encode())

    with pytest.raises(ProtocolError, match="secrets differ"):
        other.receive(*frame(one.receive(*frame(answer))))


def test_end_that_dials_itself_tags_both_directions() -> None:
    who = NodeIdentity("cluster", "ann", 1, ())
    one, other = dialler(who), acceptor(who)
    last = other.receive(*frame(one.receive(*frame(other.receive(*frame(one.start()))))))
    with pytest.raises(ProtocolError, match="dialled itself"):
        one.receive(*frame(last))

    assert other.is_self
    assert one.outgoing is not None
    assert other.incoming is not None
    assert one.outgoing.tag(b"goodbye") == other.incoming.tag(b"goodbye")
