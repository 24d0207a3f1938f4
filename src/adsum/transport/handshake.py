"""The handshake: two nodes prove to each other that they share a cluster and a secret. No I/O.

::

    dialler                                acceptor
       │ ── hello: versions, cluster, name, ──▶ │
       │     incarnation, addresses, nonce      │
       │ ◀───────────────────────────── hello ─ │   sent at once
       │ ── proof ────────────────────────────▶ │   verified before the acceptor discloses its own
       │ ◀───────────────────────────── proof ─ │

A proof is HMAC-SHA256, keyed by the shared secret, over a label for the role and both hellos
exactly as they were sent. So it binds everything the hellos say; both nonces make it worthless on
any other link (no replay), the label makes it worthless in the other direction (no reflection).
Without a secret the key is empty: the path is the same, and a node that has a secret never links
with one that has none.

The proof authenticates the peer, not the bytes that follow: who can alter traffic on its way needs
to be kept out by TLS.
"""

import hmac
import json
import secrets
from collections.abc import Callable
from typing import Any, Final

from adsum.errors import ConfigurationError, HandshakeError, ProtocolError
from adsum.quoting import quoted
from adsum.transport.base import Identity
from adsum.transport.framing import GREETING_LIMIT, HELLO, PROOF, encode_frame

#: The versions of the wire protocol that this release speaks, lowest and highest.
VERSIONS: Final = (3, 3)
NAME_LIMIT: Final = 255
ADDRESSES_LIMIT: Final = 16
ADDRESS_LIMIT: Final = 300

_MAGIC: Final = "adsum"
_NONCE_BYTES: Final = 32
_INCARNATION_LIMIT: Final = 2**63
_DIALLER: Final = b"adsum proof of the dialler"
_ACCEPTOR: Final = b"adsum proof of the acceptor"


class SelfDialError(HandshakeError):
    """The node dialled itself: the address is one of its own."""


class Handshake:
    """One side of one handshake.

    Feed it the handshake frames of the peer, write what it returns. It ends with `peer` set or
    with an error; after an error the link must be closed.

    Args:
        identity: Who this node is. What it says is copied into the hello now.
        dialling: Whether this side opened the connection, and so speaks first.
        secret: The shared secret, or None.
        nonce: Makes the random bytes of this side, as `secrets.token_bytes`.
        versions: The lowest and highest version of the protocol spoken here.

    Attributes:
        peer: Who the peer is; None until it has proved it.
        version: The version that both speak; meaningful once `peer` is set.

    Raises:
        ConfigurationError: `identity` breaks one of the limits on what a hello may say.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        dialling: bool,
        secret: bytes | None,
        nonce: Callable[[int], bytes] = secrets.token_bytes,
        versions: tuple[int, int] = VERSIONS,
    ) -> None:
        self.peer: Identity | None = None
        self.version = 0
        self._identity = identity
        self._dialling = dialling
        self._secret = secret or b""
        self._versions = versions
        self._hello = encode_hello(identity, versions, nonce(_NONCE_BYTES))
        # Both are set by the peer's hello.
        self._peer_hello: bytes | None = None
        self._claimed: Identity | None = None

    @property
    def is_self(self) -> bool:
        """Whether the proven peer is this very node."""
        mine, peer = self._identity, self.peer
        return peer is not None and (peer.name, peer.incarnation) == (mine.name, mine.incarnation)

    def start(self) -> bytes:
        """The frames to send when the connection is made: the dialler's hello, else nothing."""
        return encode_frame(HELLO, self._hello) if self._dialling else b""

    def receive(self, kind: int, body: bytes) -> bytes:
        """Take one frame of the peer; returns the frames to send in answer.

        Raises:
            SelfDialError: The dialler has reached itself. (The acceptor is not told by an error,
                so that it gives the proof that the dialler needs to be sure; see `is_self`.)
            HandshakeError: The peer speaks for another cluster, version or secret.
            ProtocolError: The frame is malformed or out of place.
        """
        if kind == HELLO and self._peer_hello is None:
            return self._receive_hello(body)
        if kind == PROOF and self._peer_hello is not None and self.peer is None:
            return self._receive_proof(body)
        raise ProtocolError(f"a frame of kind {kind} out of place in the handshake")

    def _receive_hello(self, body: bytes) -> bytes:
        claimed, versions = decode_hello(body)
        if claimed.cluster != self._identity.cluster:
            raise HandshakeError(
                f"the clusters differ: node {quoted(claimed.name)} belongs to "
                f"{quoted(claimed.cluster)}, node {self._identity.name!r} to "
                f"{quoted(self._identity.cluster)}"
            )
        self.version = self._choose_version(versions)
        self._peer_hello, self._claimed = body, claimed
        if self._dialling:
            return encode_frame(PROOF, self._proof(by_dialler=True))
        return encode_frame(HELLO, self._hello)

    def _choose_version(self, theirs: tuple[int, int]) -> int:
        mine = self._versions
        version = min(mine[1], theirs[1])
        if version < max(mine[0], theirs[0]):
            raise HandshakeError(
                f"no common protocol version: {mine[0]} to {mine[1]} here, "
                f"{theirs[0]} to {theirs[1]} there"
            )
        return version

    def _receive_proof(self, body: bytes) -> bytes:
        if not hmac.compare_digest(body, self._proof(by_dialler=not self._dialling)):
            raise HandshakeError("the secrets differ, or only one of the two nodes has one")
        self.peer = self._claimed
        if not self._dialling:
            return encode_frame(PROOF, self._proof(by_dialler=False))
        if self.is_self:
            raise SelfDialError(f"node {self._identity.name!r} dialled itself")
        return b""

    def _proof(self, *, by_dialler: bool) -> bytes:
        peer_hello = self._peer_hello or b""
        hellos = [self._hello, peer_hello] if self._dialling else [peer_hello, self._hello]
        parts = [_DIALLER if by_dialler else _ACCEPTOR, *hellos]
        # Each part carries its length, so no two different triples make the same message.
        message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._secret, message, "sha256")


def encode_hello(identity: Identity, versions: tuple[int, int], nonce: bytes) -> bytes:
    """The body of a hello.

    Raises:
        ConfigurationError: The identity breaks a limit, so no peer would accept it.
    """
    fields = [
        _MAGIC,
        list(versions),
        identity.cluster,
        identity.name,
        identity.incarnation,
        list(identity.addresses),
        nonce.hex(),
    ]
    try:
        body = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
        decode_hello(body)
    except (ProtocolError, UnicodeEncodeError) as error:
        raise ConfigurationError(
            f"no peer would accept the identity {identity!r}: {error}"
        ) from None
    if len(body) > GREETING_LIMIT:
        raise ConfigurationError(
            f"the identity of node {identity.name!r} takes {len(body)} bytes to tell, "
            f"at most {GREETING_LIMIT} are allowed; shorten its addresses"
        )
    return body


def decode_hello(body: bytes) -> tuple[Identity, tuple[int, int]]:
    """What a hello claims: the identity and the versions spoken. Nothing of it is proved yet.

    Fields beyond those known are left to later versions.

    Raises:
        ProtocolError: It is malformed, or a field is not what it must be.
    """
    try:
        fields: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise ProtocolError("a hello that is not JSON") from None
    if not isinstance(fields, list) or len(fields) < 7 or fields[0] != _MAGIC:
        raise ProtocolError("a hello that is not adsum's")
    _, versions, cluster, name, incarnation, addresses, nonce = fields[:7]
    _check(_is_text(cluster, NAME_LIMIT), "cluster")
    # As in the settings: a name stands in log lines, which a line break in it would forge.
    _check(_is_text(name, NAME_LIMIT) and name.isprintable(), "name")
    _check(type(incarnation) is int and 0 <= incarnation < _INCARNATION_LIMIT, "incarnation")
    _check(isinstance(addresses, list) and len(addresses) <= ADDRESSES_LIMIT, "addresses")
    _check(all(_is_text(address, ADDRESS_LIMIT) for address in addresses), "addresses")
    _check(isinstance(nonce, str) and _is_hex(nonce), "nonce")
    _check(_are_versions(versions), "versions")
    return Identity(cluster, name, incarnation, tuple(addresses)), (versions[0], versions[1])


def _check(holds: bool, field: str) -> None:
    if not holds:
        raise ProtocolError(f"a hello whose {field} is not acceptable")


def _is_text(value: object, limit: int) -> bool:
    if not isinstance(value, str) or not 0 < len(value) <= limit:
        return False
    # A lone surrogate passes through JSON but cannot be encoded: it would break whoever logs it.
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _is_hex(nonce: str) -> bool:
    return len(nonce) == 2 * _NONCE_BYTES and all(digit in "0123456789abcdef" for digit in nonce)


def _are_versions(versions: object) -> bool:
    return (
        isinstance(versions, list)
        and len(versions) == 2
        and all(type(version) is int for version in versions)
        and 0 < versions[0] <= versions[1] < 2**31
    )
