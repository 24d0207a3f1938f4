"""The options of a transport: secret, encryption, limits, and its part of each handshake."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from adsum.transport.handshake import VERSIONS
from adsum.transport.limits import TransportLimits
from adsum.transport.tls import TLS


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportOptions:
    """The options that all links of one transport share; the defaults suit one host.

    Attributes:
        secret: The secret that all nodes of the cluster share, or None.
        tls: Encrypts TCP links, or None. Unix sockets are never encrypted.
        limits: Bounds on memory and waiting.
        nonce: Makes random bytes for handshakes.
        versions: The lowest and highest wire protocol version to speak.
    """

    secret: bytes | None = field(default=None, repr=False)
    tls: TLS | None = None
    limits: TransportLimits = field(default_factory=TransportLimits)
    nonce: Callable[[int], bytes] = secrets.token_bytes
    versions: tuple[int, int] = VERSIONS
