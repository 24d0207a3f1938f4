"""The handshake proves what it claims to, and gives nothing to those who cheat."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.errors import ConfigurationError, HandshakeError, ProtocolError
from adsum.transport.base import NodeIdentity
from adsum.transport.framing import FRAME_LIMIT, HELLO, PROOF, FrameReader
from adsum.transport.handshake import VERSIONS, Handshake, SelfDialError, decode_hello, encode_hello

ANN = NodeIdentity("cluster", "ann", 1, ("10.0.0.1:7400",))
BOB = NodeIdentity("cluster", "bob", 2, ("unix:/run/bob.sock", "10.0.0.2:7400"))
SECRET = b"correct horse battery staple"

Frame = tuple[int, bytes]


def dialler(who: NodeIdentity = ANN, secret: bytes | None = SECRET, **settings: Any) -> Handshake:
    return Handshake(who, dialling=True, secret=secret, **settings)


def acceptor(who: NodeIdentity = BOB, secret: bytes | None = SECRET, **settings: Any) -> Handshake:
    return Handshake(who, dialling=False, secret=secret, **settings)


def frames(stream: bytes) -> list[Frame]:
    reader = FrameReader(FRAME_LIMIT)
    reader.feed(stream)
    return list(iter(reader.take, None))


def frame(stream: bytes) -> Frame:
    (only,) = frames(stream)
    return only


def shake(one: Handshake, other: Handshake) -> list[Frame]:
    """Run a handshake to its end; returns everything that was said."""
    said = []
    stream, speaker, listener = one.start(), one, other
    while stream:
        said.append(frame(stream))
        stream = listener.receive(*frame(stream))
        speaker, listener = listener, speaker
    return said


def test_both_sides_end_up_knowing_each_other() -> None:
    one, other = dialler(), acceptor()

    said = shake(one, other)

    assert [kind for kind, _ in said] == [HELLO, HELLO, PROOF, PROOF]
    assert (one.peer, other.peer) == (BOB, ANN)
    assert one.version == other.version == VERSIONS[1]
    assert not one.is_self


def test_nobody_is_known_before_the_proof() -> None:
    one, other = dialler(), acceptor()
    other.receive(*frame(one.start()))

    assert other.peer is None


@pytest.mark.parametrize(
    ("mine", "theirs", "chosen"),
    [((1, 1), (1, 1), 1), ((1, 2), (1, 1), 1), ((1, 2), (2, 3), 2), ((1, 9), (1, 9), 9)],
)
def test_the_highest_common_version_is_spoken(
    mine: tuple[int, int], theirs: tuple[int, int], chosen: int
) -> None:
    one, other = dialler(versions=mine), acceptor(versions=theirs)

    shake(one, other)

    assert one.version == other.version == chosen


def test_no_common_version_is_said_in_numbers() -> None:
    with pytest.raises(HandshakeError, match="3 to 4 here, 1 to 2 there"):
        shake(dialler(versions=(1, 2)), acceptor(versions=(3, 4)))


def test_another_cluster_is_named() -> None:
    with pytest.raises(HandshakeError, match="'ann' belongs to 'kitchen', node 'bob' to 'cluster'"):
        shake(dialler(replace(ANN, cluster="kitchen")), acceptor())


@pytest.mark.parametrize("secrets", [(b"a", b"b"), (b"a", None), (None, b"b")])
def test_the_acceptor_finds_that_secrets_differ_and_proves_nothing(
    secrets: tuple[bytes | None, bytes | None],
) -> None:
    one, other = dialler(secret=secrets[0]), acceptor(secret=secrets[1])
    hello = other.receive(*frame(one.start()))
    proof = one.receive(*frame(hello))

    with pytest.raises(HandshakeError, match="secrets differ"):
        other.receive(*frame(proof))

    assert other.peer is None


def test_the_dialler_does_not_believe_an_acceptor_without_the_secret() -> None:
    one, other = dialler(), acceptor(secret=b"guess")
    one.receive(*frame(other.receive(*frame(one.start()))))

    with pytest.raises(HandshakeError, match="secrets differ"):
        one.receive(PROOF, bytes(32))

    assert one.peer is None


def test_an_empty_secret_is_no_secret() -> None:
    one, other = dialler(secret=b""), acceptor(secret=None)

    shake(one, other)

    assert one.peer == BOB


def test_what_a_dialler_said_once_is_worthless_on_another_link() -> None:
    said = shake(dialler(), acceptor())
    other = acceptor()
    other.receive(*said[0])

    with pytest.raises(HandshakeError, match="secrets differ"):
        other.receive(*said[2])


def test_what_an_acceptor_said_once_is_worthless_on_another_link() -> None:
    said = shake(dialler(), acceptor())
    one = dialler()
    one.start()
    one.receive(*said[1])

    with pytest.raises(HandshakeError, match="secrets differ"):
        one.receive(*said[3])


def test_a_dialler_cannot_be_answered_with_its_own_words() -> None:
    one = dialler()
    hello = frame(one.start())
    proof = frame(one.receive(*hello))

    with pytest.raises(HandshakeError, match="secrets differ"):
        one.receive(*proof)


def test_an_acceptor_cannot_be_used_to_answer_another_acceptor() -> None:
    """Without the role in the proof, two links to one node would prove each other."""
    victim = acceptor()
    accomplice = acceptor()
    hello = frame(dialler().start())
    victim.receive(*hello)
    accomplice.receive(*hello)

    with pytest.raises(HandshakeError, match="secrets differ"):
        victim.receive(PROOF, accomplice._proof(by_dialler=False))


FIELDS = {"versions": 1, "name": 3, "incarnation": 4, "addresses": 5, "nonce": 6, "authenticate": 7}
FORGED: dict[str, object] = {
    "versions": [1, VERSIONS[1]],
    "name": "eve",
    "incarnation": 99,
    "addresses": ["6.6.6.6:666"],
    "nonce": "00" * 32,
    "authenticate": 0,
}


@pytest.mark.parametrize(("field", "tampers_with"), list(itertools.product(FIELDS, ("ann", "bob"))))
def test_no_field_of_a_hello_can_be_altered_on_its_way(field: str, tampers_with: str) -> None:
    def tamper(body: bytes) -> bytes:
        hello = json.loads(body)
        hello[FIELDS[field]] = FORGED[field]
        return json.dumps(hello).encode()

    one, other = dialler(), acceptor()
    kind, hello = frame(one.start())
    answer_kind, answer = frame(
        other.receive(kind, tamper(hello) if tampers_with == "ann" else hello)
    )
    proof = one.receive(answer_kind, tamper(answer) if tampers_with == "bob" else answer)

    with pytest.raises(HandshakeError, match="secrets differ"):
        other.receive(*frame(proof))


def test_nonces_come_from_where_they_are_told_to() -> None:
    hello = frame(dialler(nonce=lambda size: b"\xab" * size).start())

    assert json.loads(hello[1])[6] == "ab" * 32


def test_two_hellos_never_have_the_same_nonce() -> None:
    assert frame(dialler().start()) != frame(dialler().start())


def test_dialling_oneself_is_found_out_only_after_the_proof() -> None:
    """An impostor with our name, but not our secret, must not make us give up its address."""
    one, other = dialler(ANN), acceptor(ANN)
    hello = other.receive(*frame(one.start()))
    proof = one.receive(*frame(hello))
    answer = other.receive(*frame(proof))
    assert other.is_self

    with pytest.raises(SelfDialError, match="'ann' dialled itself"):
        one.receive(*frame(answer))

    impostor, victim = acceptor(ANN, secret=b"guess"), dialler(ANN)
    victim.receive(*frame(impostor.receive(*frame(victim.start()))))
    with pytest.raises(HandshakeError, match="secrets differ"):
        victim.receive(PROOF, bytes(32))


def test_another_incarnation_is_somebody_else() -> None:
    one = dialler(ANN)
    shake(one, acceptor(replace(ANN, incarnation=2)))

    assert not one.is_self


@pytest.mark.parametrize(
    "misplaced",
    [
        lambda hello, proof: [proof],
        lambda hello, proof: [hello, hello],
        lambda hello, proof: [hello, proof, proof],
        lambda hello, proof: [hello, proof, hello],
    ],
    ids=["proof first", "two hellos", "two proofs", "hello at the end"],
)
def test_frames_out_of_place_are_refused(
    misplaced: Callable[[Frame, Frame], list[Frame]],
) -> None:
    one, other = dialler(), acceptor()
    hello = frame(one.start())
    probe = acceptor(nonce=lambda size: bytes(size))
    other = acceptor(nonce=lambda size: bytes(size))
    proof = frame(one.receive(*frame(probe.receive(*hello))))
    sequence = misplaced(hello, proof)
    for step in sequence[:-1]:
        other.receive(*step)

    with pytest.raises(ProtocolError, match="out of place"):
        other.receive(*sequence[-1])


def hello_with(position: int, value: object) -> bytes:
    fields = json.loads(encode_hello(ANN, (1, 1), bytes(32), True))
    fields[position] = value
    return json.dumps(fields).encode()


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (0, "other"),
        (1, [2, 1]),
        (1, [0, 1]),
        (1, [1]),
        (1, [True, True]),
        (1, [1, 2**31]),
        (1, None),
        (2, ""),
        (2, "x" * 256),
        (2, 7),
        (3, ""),
        (3, "x" * 256),
        (3, "\ud800"),
        (4, -1),
        (4, 2**63),
        (4, 1.5),
        (4, True),
        (4, "1"),
        (5, "10.0.0.1:1"),
        (5, ["a:1"] * 17),
        (5, ["x" * 301]),
        (5, [""]),
        (5, [1]),
        (6, "00" * 31),
        (6, "zz" * 32),
        (6, 5),
        (7, 2),
        (7, True),
        (7, "1"),
        (7, None),
    ],
)
def test_every_field_of_a_hello_is_checked(position: int, value: object) -> None:
    with pytest.raises(ProtocolError):
        decode_hello(hello_with(position, value))


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b"[" * 8000, b"\xff", b'["adsum"]', b"1" * 8000]
)
def test_a_hello_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_hello(body)


def test_fields_that_a_later_version_adds_are_passed_over() -> None:
    fields = json.loads(encode_hello(ANN, (1, 2), bytes(32), True))

    assert decode_hello(json.dumps([*fields, {"new": True}]).encode()) == (ANN, (1, 2), True)


@given(st.binary(max_size=200))
def test_no_bytes_of_a_stranger_do_worse_than_a_protocol_error(body: bytes) -> None:
    for kind in (HELLO, PROOF):
        with pytest.raises(ProtocolError):
            acceptor().receive(kind, body)


@pytest.mark.parametrize(
    "wrong",
    [
        replace(ANN, name=""),
        replace(ANN, cluster="x" * 256),
        replace(ANN, incarnation=-1),
        replace(ANN, addresses=("a:1",) * 17),
        replace(ANN, name="\ud800"),
        replace(ANN, addresses=("é" * 300,) * 16),
    ],
    ids=["no name", "long cluster", "incarnation", "addresses", "surrogate", "too long to tell"],
)
def test_an_identity_that_no_peer_would_accept_is_refused_at_home(wrong: NodeIdentity) -> None:
    with pytest.raises(ConfigurationError):
        dialler(wrong)
