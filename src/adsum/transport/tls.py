"""TLS between nodes, and the rule for addresses that may be used without protection."""

import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from os import PathLike

from adsum.errors import ConfigurationError
from adsum.transport.address import parse


@dataclass(frozen=True, slots=True)
class TLS:
    """TLS settings of TCP links. Unix sockets never leave the host and are not encrypted.

    Contexts that verify should trust an authority that signs for this cluster alone: each holder
    of its certificates counts as a member, and frames over mutual TLS carry no tags.

    Attributes:
        server: The context for inbound links.
        client: The context for links that this node dials.
        allow_unverified: Whether a context may accept a peer without verifying its certificate.
            Then the secret alone makes a node a member, and a stranger on the path can read the
            traffic. Refused without a secret.

    Raises:
        ConfigurationError: A context is not an `ssl.SSLContext`.
    """

    server: ssl.SSLContext
    client: ssl.SSLContext
    allow_unverified: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        for name, context in (("server", self.server), ("client", self.client)):
            if not isinstance(context, ssl.SSLContext):
                raise ConfigurationError(f"tls.{name}={context!r}: must be an ssl.SSLContext")

    @classmethod
    def from_files(
        cls,
        certificate: str | PathLike[str],
        key: str | PathLike[str],
        authority: str | PathLike[str],
    ) -> "TLS":
        """Make mutual TLS 1.2 or newer with certificates of a private authority.

        Both ends must present a certificate signed by `authority`, so use an authority that signs
        for this cluster alone. Host names are not checked: nodes find each other by IP address,
        and a certificate of the authority makes a node a member, wherever it runs.

        Args:
            certificate: The node's certificate chain, PEM.
            key: Its private key, PEM, without a passphrase.
            authority: The certificates of the authority, PEM.

        Raises:
            ConfigurationError: A file cannot be read, is not PEM, or key and certificate differ.
        """
        contexts = []
        for purpose in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
            context = ssl.SSLContext(purpose)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_REQUIRED
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            try:
                context.load_cert_chain(certificate, key)
                context.load_verify_locations(authority)
            except (OSError, ValueError) as error:
                raise ConfigurationError(
                    f"tls: certificate={str(certificate)!r}, key={str(key)!r} or "
                    f"authority={str(authority)!r} cannot be used: {error}; "
                    "must be PEM files, the key without a passphrase"
                ) from error
            contexts.append(context)
        return cls(*contexts)

    @property
    def mutual(self) -> bool:
        """Whether both ends refuse a peer without a certificate."""
        return not self.unverified

    @property
    def unverified(self) -> list[str]:
        """The names of the contexts that accept a peer without verifying its certificate."""
        contexts = {"server": self.server, "client": self.client}
        return [name for name, each in contexts.items() if each.verify_mode != ssl.CERT_REQUIRED]


def require_verification(tls: TLS | None, secret: bytes | None) -> None:
    """Refuse contexts that verify no peer, unless that is allowed and a secret is set.

    Raises:
        ConfigurationError: A context does not verify; names it and the setting to change.
    """
    if tls is None or tls.mutual or (secret and tls.allow_unverified):
        return
    name = tls.unverified[0]
    mode = getattr(tls, name).verify_mode.name
    raise ConfigurationError(
        f"tls.{name}.verify_mode={mode}: must be CERT_REQUIRED in both contexts, as from "
        "adsum.TLS.from_files(); or, with a secret, TLS(..., allow_unverified=True): "
        "then the secret alone keeps strangers out, and a stranger on the path can read"
    )


def require_security(
    addresses: Iterable[str], secret: bytes | None, tls: TLS | None, field: str = "listen"
) -> None:
    """Refuse addresses beyond this host, unless both ends of a link must prove themselves.

    Args:
        addresses: The addresses to listen on or to dial.
        secret: The shared secret, or None.
        tls: The TLS settings, or None.
        field: The setting that the addresses come from, named in the error.

    Raises:
        ConfigurationError: An address leads beyond this host, and neither a secret nor mutual TLS
            protects it; names the settings that would.
    """
    if secret or (tls is not None and tls.mutual):
        return
    for text in addresses:
        if not parse(text, field).is_loopback:
            raise ConfigurationError(
                f"{field}={text!r}: must be protected, since it leads beyond this host; set "
                "secret= (ADSUM_SECRET) to the same long random string on every node, or tls= to "
                "mutual TLS; without them it must be on 127.0.0.1, [::1] or unix:/path"
            )
