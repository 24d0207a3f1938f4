"""`HttpAddress`: the address of an instance, as an HTTP client needs it. Pure."""

from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import urlsplit

from adsum.arguments import refuse

#: The scheme of URLs whose host is the name of a service.
SCHEME = "svc"
#: Methods whose requests may be executed twice (RFC 9110, section 9.2.2).
IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
#: A request with this header may be executed twice, whatever its method: the server compares keys.
IDEMPOTENCY_KEY = "Idempotency-Key"

_ACCEPTED = (
    "http://host:port or https://host:port, with or without a path; host:port; or unix:/path"
)


@dataclass(frozen=True, slots=True)
class HttpAddress:
    """Where to send the requests for an instance.

    Attributes:
        scheme: ``http`` or ``https``.
        host: A name or an IP address; ``localhost`` behind a Unix socket.
        port: None for that of the scheme.
        prefix: A path before that of each request, without a slash at its end.
        socket: The path of a Unix socket; None for TCP.
    """

    scheme: str
    host: str
    port: int | None = None
    prefix: str = ""
    socket: str | None = None


def parse_address(address: str) -> HttpAddress:
    """Parse the address of an instance.

    Raises:
        ConfigurationError: It is not one of an HTTP server.
    """
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        if not path.startswith("/"):
            _refuse(address)
        return HttpAddress("http", "localhost", socket=path)
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        _refuse(address)
    rest = parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in ("http", "https") or not host or rest:
        _refuse(address)
    return HttpAddress(parts.scheme, host, port, parts.path.rstrip("/"))


def _refuse(address: str) -> NoReturn:
    refuse("address", address, _ACCEPTED)
