"""The handshake: two nodes prove to each other that they share a cluster and a secret. No I/O.

::

    dialler                                acceptor
       │ ── hello: versions, cluster, name, ──▶ │
       │     incarnation, addresses, nonce,     │
       │     wish for authenticated frames      │
       │ ◀───────────────────────────── hello ─ │   sent at once
       │ ── proof ────────────────────────────▶ │   verified before the acceptor discloses its own
       │ ◀───────────────────────────── proof ─ │

A proof is HMAC-SHA256, keyed by the shared secret, over a label for the role and both hellos
exactly as they were sent. So it binds every field of the hellos. The two nonces make it worthless
on any other link (no replay), the label makes it worthless in the other direction (no reflection).
Without a secret the key is empty: the path is the same, and a node with a secret never links with
a node without one.

The proof authenticates the peer, not the bytes that follow, and a relay can forward it. So each
later frame is followed by a tag (`adsum.transport.frame_mac`) if either end requests that in its
hello, which the proofs bind. An end requests tags if it has a secret and its stream is not
protected already. The key of each direction is derived like the proofs, with a label of its own,
so that no proof is a key. In each direction the first frame with a tag is the one after the proof:
a position in the stream, so both ends agree on it independently of timing.
"""

import hmac
import json
import secrets
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from adsum.errors import ConfigurationError, HandshakeError, ProtocolError
from adsum.quoting import quoted
from adsum.transport.contract import NodeIdentity
from adsum.transport.frame_mac import FrameMac
from adsum.transport.framing import GREETING_LIMIT, HELLO, PROOF, encode_frame
from adsum.values.limits import MAX_ADDRESS, MAX_ADDRESSES, MAX_NODE_NAME, MAX_NUMBER
from adsum.values.names import is_name

#: The versions of the wire protocol that this release speaks, lowest and highest.
VERSIONS: Final = (5, 5)

_MAGIC: Final = "adsum"
_NONCE_BYTES: Final = 32
_DIALLER: Final = b"adsum proof of the dialler"
_ACCEPTOR: Final = b"adsum proof of the acceptor"
_DIALLER_KEY: Final = b"adsum key for frames of the dialler"
_ACCEPTOR_KEY: Final = b"adsum key for frames of the acceptor"


class SelfDialError(HandshakeError):
    """The node dialled itself: the address is one of its own."""


class Hello(NamedTuple):
    """The claims of a hello, none of which is proved yet."""

    identity: NodeIdentity
    #: The lowest and the highest protocol version that the sender speaks.
    versions: tuple[int, int]
    #: Whether the sender wants frames to be authenticated.
    authenticate: bool


class Handshake:
    """One side of one handshake, a state machine without I/O.

    Pass the handshake frames of the peer to `receive` and send the frames that it returns. The
    handshake ends with `peer` set or with an error; after an error the link must be closed.

    Args:
        identity: The identity of this node, copied into the hello at construction.
        dialling: Whether this side opened the connection, and so sends first.
        secret: The shared secret, or None.
        protected: Whether only members, or processes of this user, can be at the other end of the
            stream or in between: its frames need no tags.
        nonce: Makes the random bytes of this side, like `secrets.token_bytes`.
        versions: The lowest and highest protocol version of this node.

    Attributes:
        peer: The identity of the peer; None until it is proved.
        version: The common protocol version; meaningful once `peer` is set.
        outgoing: Makes the tags of the frames to send; set with the proof of this side, and None
            on a link without tags.
        incoming: Checks the tags of the frames that follow the proof of the peer; set with it.

    Raises:
        ConfigurationError: `identity` breaks one of the limits of a hello.
    """

    def __init__(
        self,
        identity: NodeIdentity,
        *,
        dialling: bool,
        secret: bytes | None,
        protected: bool = False,
        nonce: Callable[[int], bytes] = secrets.token_bytes,
        versions: tuple[int, int] = VERSIONS,
    ) -> None:
        self.peer: NodeIdentity | None = None
        self.version = 0
        self.outgoing: FrameMac | None = None
        self.incoming: FrameMac | None = None
        self._identity = identity
        self._dialling = dialling
        self._secret = secret or b""
        self._versions = versions
        # Without a secret, a relay could derive every key, too.
        self._authenticate = bool(secret) and not protected
        self._hello = encode_hello(identity, versions, nonce(_NONCE_BYTES), self._authenticate)
        # Both are set by the peer's hello.
        self._peer_hello: bytes | None = None
        self._claimed: NodeIdentity | None = None

    @property
    def is_self(self) -> bool:
        """Whether the proved peer is this node itself."""
        mine, peer = self._identity, self.peer
        return peer is not None and (peer.name, peer.incarnation) == (mine.name, mine.incarnation)

    def start(self) -> bytes:
        """The frames to send when the connection is made: the dialler's hello, else nothing."""
        return encode_frame(HELLO, self._hello) if self._dialling else b""

    def receive(self, kind: int, body: bytes) -> bytes:
        """Receive one frame of the peer; returns the frames to send in answer.

        Raises:
            SelfDialError: The dialler has reached itself. (The acceptor raises no error, because
                the dialler needs its proof to be sure; see `is_self`.)
            HandshakeError: The cluster, version or secret of the peer differs.
            ProtocolError: The frame is malformed or out of place.
        """
        if kind == HELLO and self._peer_hello is None:
            return self._receive_hello(body)
        if kind == PROOF and self._peer_hello is not None and self.peer is None:
            return self._receive_proof(body)
        raise ProtocolError(f"an unexpected frame of kind {kind} in the handshake")

    def _receive_hello(self, body: bytes) -> bytes:
        claimed, versions, authenticate = decode_hello(body)
        if claimed.cluster != self._identity.cluster:
            raise HandshakeError(
                f"the clusters differ: node {quoted(claimed.name)} belongs to "
                f"{quoted(claimed.cluster)}, node {self._identity.name!r} to "
                f"{quoted(self._identity.cluster)}; give both the same cluster= (ADSUM_CLUSTER)"
            )
        self.version = self._choose_version(versions)
        self._peer_hello, self._claimed = body, claimed
        self._authenticate = self._authenticate or authenticate
        if self._dialling:
            return self._prove()
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
        self.incoming = self._frame_mac(of_dialler=not self._dialling)
        if not self._dialling:
            return self._prove()
        if self.is_self:
            raise SelfDialError(f"node {self._identity.name!r} dialled itself")
        return b""

    def _prove(self) -> bytes:
        self.outgoing = self._frame_mac(of_dialler=self._dialling)
        return encode_frame(PROOF, self._proof(by_dialler=self._dialling))

    def _proof(self, *, by_dialler: bool) -> bytes:
        return self._derive(_DIALLER if by_dialler else _ACCEPTOR)

    def _frame_mac(self, *, of_dialler: bool) -> FrameMac | None:
        if not self._authenticate:
            return None
        return FrameMac(self._derive(_DIALLER_KEY if of_dialler else _ACCEPTOR_KEY))

    def _derive(self, label: bytes) -> bytes:
        """Derive the 32 bytes of one label, which only the two ends of this link can compute."""
        peer_hello = self._peer_hello or b""
        hellos = [self._hello, peer_hello] if self._dialling else [peer_hello, self._hello]
        parts = [label, *hellos]
        # Each part carries its length, so no two different triples make the same message.
        message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._secret, message, "sha256")


def encode_hello(
    identity: NodeIdentity, versions: tuple[int, int], nonce: bytes, authenticate: bool
) -> bytes:
    """Encode the body of a hello.

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
        int(authenticate),
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
            f"the identity of node {identity.name!r} takes {len(body)} bytes in a hello: "
            f"must be at most {GREETING_LIMIT}; shorten its addresses"
        )
    return body


def decode_hello(body: bytes) -> Hello:
    """Decode the claims of a hello.

    Additional fields, of later versions, are ignored. Hellos of earlier versions have no field for
    authentication; they are refused by their version, with a clearer error.

    Raises:
        ProtocolError: The hello is malformed, or a field has a wrong type or value.
    """
    try:
        fields: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise ProtocolError("a hello that is not JSON") from None
    if not isinstance(fields, list) or len(fields) < 7 or fields[0] != _MAGIC:
        raise ProtocolError("a hello of another protocol")
    _, versions, cluster, name, incarnation, addresses, nonce = fields[:7]
    _check(is_name(cluster, MAX_NODE_NAME), "cluster")
    # As in the settings: a line break in a name could forge log lines.
    _check(is_name(name, MAX_NODE_NAME) and name.isprintable(), "name")
    _check(type(incarnation) is int and 0 <= incarnation < MAX_NUMBER, "incarnation")
    _check(isinstance(addresses, list) and len(addresses) <= MAX_ADDRESSES, "addresses")
    _check(all(is_name(address, MAX_ADDRESS) for address in addresses), "addresses")
    _check(isinstance(nonce, str) and _is_hex(nonce), "nonce")
    _check(_are_versions(versions), "versions")
    authenticate = fields[7] if len(fields) > 7 else 0
    _check(type(authenticate) is int and authenticate in (0, 1), "authentication flag")
    identity = NodeIdentity(cluster, name, incarnation, tuple(addresses))
    return Hello(identity, (versions[0], versions[1]), authenticate == 1)


def _check(holds: bool, field: str) -> None:
    if not holds:
        raise ProtocolError(f"a hello with an invalid field: {field}")


def _is_hex(nonce: str) -> bool:
    return len(nonce) == 2 * _NONCE_BYTES and all(digit in "0123456789abcdef" for digit in nonce)


def _are_versions(versions: object) -> bool:
    return (
        isinstance(versions, list)
        and len(versions) == 2
        and all(type(version) is int for version in versions)
        and 0 < versions[0] <= versions[1] < 2**31
    )
