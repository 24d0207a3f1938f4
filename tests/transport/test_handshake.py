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
from adsum.transport.contract import NodeIdentity
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


def test_handshake_identifies_both_sides() -> None:
    one, other = dialler(), acceptor()

    said = shake(one, other)

    assert [kind for kind, _ in said] == [HELLO, HELLO, PROOF, PROOF]
    assert (one.peer, other.peer) == (BOB, ANN)
    assert one.version == other.version == VERSIONS[1]
    assert not one.is_self


def test_handshake_identifies_no_peer_before_the_proof() -> None:
    one, other = dialler(), acceptor()
    other.receive(*frame(one.start()))

    assert other.peer is None


@pytest.mark.parametrize(
    ("mine", "theirs", "chosen"),
    [((1, 1), (1, 1), 1), ((1, 2), (1, 1), 1), ((1, 2), (2, 3), 2), ((1, 9), (1, 9), 9)],
)
def test_handshake_chooses_the_highest_common_version(
    mine: tuple[int, int], theirs: tuple[int, int], chosen: int
) -> None:
    one, other = dialler(versions=mine), acceptor(versions=theirs)

    shake(one, other)

    assert one.version == other.version == chosen


def test_handshake_without_a_common_version_names_both() -> None:
    with pytest.raises(HandshakeError, match="3 to 4 here, 1 to 2 there"):
        shake(dialler(versions=(1, 2)), acceptor(versions=(3, 4)))


def test_handshake_of_another_cluster_names_it() -> None:
    with pytest.raises(HandshakeError, match="'ann' belongs to 'kitchen', node 'bob' to 'cluster'"):
        shake(dialler(replace(ANN, cluster="kitchen")), acceptor())


@pytest.mark.parametrize("secrets", [(b"a", b"b"), (b"a", None), (None, b"b")])
def test_acceptor_rejects_a_different_secret_and_proves_nothing(
    secrets: tuple[bytes | None, bytes | None],
) -> None:
    one, other = dialler(secret=secrets[0]), acceptor(secret=secrets[1])
    hello = other.receive(*frame(one.start()))
    proof = one.receive(*frame(hello))

    with pytest.raises(HandshakeError, match="secrets differ"):
        other.receive(*frame(proof))

    assert other.peer is None


def test_dialler_rejects_an_acceptor_without_the_secret() -> None:
    one, other = dialler(), acceptor(secret=b"guess")
    one.receive(*frame(other.receive(*frame(one.start()))))

    with pytest.raises(HandshakeError, match="secrets differ"):
        one.receive(PROOF, bytes(32))

    assert one.peer is None


def test_empty_secret_is_no_secret() -> None:
    one, other = dialler(secret=b""), acceptor(secret=None)

    shake(one, other)

    assert one.peer == BOB


def test_replay_of_a_diallers_handshake_fails_on_another_link() -> None:
    said = shake(dialler(), acceptor())
    other = acceptor()
    other.receive(*said[0])

    with pytest.raises(HandshakeError, match="secrets differ"):
        other.receive(*said[2])


def test_replay_of_an_acceptors_handshake_fails_on_another_link() -> None:
    said = shake(dialler(), acceptor())
    one = dialler()
    one.start()
    one.receive(*said[1])

    with pytest.raises(HandshakeError, match="secrets differ"):
        one.receive(*said[3])


def test_reflected_handshake_fails_for_the_dialler() -> None:
    one = dialler()
    hello = frame(one.start())
    proof = frame(one.receive(*hello))

    with pytest.raises(HandshakeError, match="secrets differ"):
        one.receive(*proof)


def test_acceptor_proof_cannot_answer_another_acceptor() -> None:
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
def test_altered_hello_field_fails_the_handshake(field: str, tampers_with: str) -> None:
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


def test_nonces_come_from_the_given_source() -> None:
    hello = frame(dialler(nonce=lambda size: b"\xab" * size).start())

    assert json.loads(hello[1])[6] == "ab" * 32


def test_hello_nonces_never_repeat() -> None:
    assert frame(dialler().start()) != frame(dialler().start())


def test_dial_of_oneself_is_detected_after_the_proof() -> None:
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


def test_handshake_with_another_incarnation_is_not_oneself() -> None:
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
def test_out_of_order_handshake_frames_are_rejected(
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

    with pytest.raises(ProtocolError, match="unexpected frame"):
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
def test_malformed_hello_is_rejected(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_hello(body)


def test_hello_fields_of_a_later_version_are_ignored() -> None:
    fields = json.loads(encode_hello(ANN, (1, 2), bytes(32), True))

    assert decode_hello(json.dumps([*fields, {"new": True}]).encode()) == (ANN, (1, 2), True)


@given(st.binary(max_size=200))
def test_random_handshake_bytes_raise_only_protocol_errors(body: bytes) -> None:
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
def test_identity_that_no_peer_accepts_is_refused_locally(wrong: NodeIdentity) -> None:
    with pytest.raises(ConfigurationError):
        dialler(wrong)
