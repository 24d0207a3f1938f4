"""`HttpAddress`: the address of an instance, as an HTTP client needs it. Pure.

Any member may register any text, so the check is strict: an accepted address is a URL for every
client. Other hosts and paths raise different errors in each client, such as `UnicodeError` of the
resolver of names, and an error that is none of the client's own is not repeated on another
instance.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address
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
    "http://host:port or https://host:port, with or without a path; host:port; or unix:/path; "
    "host and path in ASCII, other characters as xn-- and %XX"
)
#: Visible ASCII without a backslash, which clients read as a slash or as a part of the host.
_TEXT = re.compile(r"[!-\[\]-~]+")
#: A name of DNS: labels of 1 to 63 characters, with or without a dot at the end.
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")


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
        if not path.startswith("/") or "\0" in path:
            _refuse(address)
        return HttpAddress("http", "localhost", socket=path)
    if not _TEXT.fullmatch(address):
        _refuse(address)
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        _refuse(address)
    rest = parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in ("http", "https") or port == 0 or rest or not _is_host(host or ""):
        _refuse(address)
    return HttpAddress(parts.scheme, host or "", port, parts.path.rstrip("/"))


def _is_host(host: str) -> bool:
    """Whether a text is a name of DNS or an IP address without a zone."""
    if _HOST.fullmatch(host):
        return True
    try:
        return "%" not in str(ip_address(host))
    except ValueError:
        return False


def _refuse(address: str) -> NoReturn:
    refuse("address", address, _ACCEPTED)
