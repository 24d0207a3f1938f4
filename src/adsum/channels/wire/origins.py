"""Origin check: matches the `Origin` header of browsers against a list of patterns. Pure.

An origin is a scheme, a host and a port. It is compared as a whole: a pattern without a port stands
for the default port of its scheme. A pattern that no origin can match is refused at construction,
so a mistake is found before a page is refused.

Browsers send ``null`` for pages without an origin (sandboxed frames, files), and applications in a
shell have schemes of their own, as ``app://local`` or ``capacitor://localhost``. These are accepted
only if listed literally.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from adsum.errors import ConfigurationError
from adsum.quoting import quoted

#: The schemes that have a default port. Browsers send the first two, and a pattern without a scheme
#: stands for these; other clients may send any.
_PAGES = {"http": 80, "https": 443}
_PORTS = {**_PAGES, "ws": 80, "wss": 443}

_ORIGIN = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.-]*):)?//"
    r"(?P<host>\[[0-9a-f:.]+\]|[^\[\]:/?#@\\\s]*)"
    r"(?::(?P<port>[0-9]{1,5}))?",
    re.IGNORECASE,
)
_HOST = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[^\[\]:/?#@\\\s]+)(?::[0-9]*)?", re.IGNORECASE)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
#: Characters that browsers and the encoder of the standard library encode differently.
_AMBIGUOUS = frozenset("\u00df\u03c2\u200c\u200d")
_ACCEPTED = (
    "must be like 'https://example.com', 'http://localhost:4000', '//example.com' (http and "
    "https), '//*.example.com' (its subdomains), 'app://local' (a scheme of an application), "
    "'null' (pages without an origin) and '*' (all)"
)


class RejectedError(Exception):
    """The client may not connect; the message is for the log."""


@dataclass(frozen=True, slots=True)
class _Site:
    """An origin, or a pattern.

    Attributes:
        scheme: In lower case; None in a pattern for http and https.
        host: In lower case and ASCII; for a pattern with a star, the part after it, with the dot.
        port: The explicit port, or the default port of the scheme; None if there is neither.
        any_subdomain: Whether it is a pattern with a star.
    """

    scheme: str | None
    host: str
    port: int | None
    any_subdomain: bool = False

    def matches(self, origin: "_Site") -> bool:
        """Whether this pattern matches an origin."""
        if self.scheme is None:
            port = _PAGES.get(origin.scheme or "")
            if port is None or origin.port != (self.port or port):
                return False
        elif (origin.scheme, origin.port) != (self.scheme, self.port):
            return False
        if self.any_subdomain:
            return origin.host.endswith(self.host) and origin.host != self.host
        return origin.host == self.host


class Origins:
    """The web sites that may connect. Requests without an origin, as of non-browsers, are accepted.

    Args:
        accepted: As ``["https://example.com", "//*.example.com"]``, see `Socket`; ``["*"]`` for
            all; None for the host in the ``Host`` header, with any port.

    Raises:
        ConfigurationError: An entry is not an origin, or no origin can match it.
    """

    def __init__(self, accepted: Sequence[str] | None) -> None:
        if isinstance(accepted, str):
            raise ConfigurationError(f"origins={accepted!r}: must be a list of origins, or None")
        self._accepts_host = accepted is None
        listed = list(accepted or ())
        self._all, self._opaque = "*" in listed, "null" in [_lower(one) for one in listed]
        self._sites = [_pattern(one) for one in listed if one != "*" and _lower(one) != "null"]

    def check(self, headers: dict[str, str]) -> None:
        """Check the origin of a request.

        Raises:
            RejectedError: The origin is not accepted; gives the setting that would accept it, if
                there is one.
        """
        origin, host = headers.get("origin"), headers.get("host")
        if origin is None or self.accepts(origin, host):
            return
        why = f"its origin {quoted(origin)} is not accepted"
        if self._accepts_host:
            why = f"its origin {quoted(origin)} is not that of {quoted(host)}"
        if _can_be_listed(origin):
            why += f"; to allow it: Socket(..., origins=[{quoted(origin)}])"
        raise RejectedError(why)

    def accepts(self, origin: str | None, host: str | None) -> bool:
        """Whether a page of an origin may connect to a host."""
        if origin is None or self._all:
            return True
        if origin == "null":
            return self._opaque
        site = _parse(origin)
        if site is None or site.scheme is None:
            return False
        if self._accepts_host:
            return site.scheme in _PORTS and site.host == _host_of(host or "")
        return any(pattern.matches(site) for pattern in self._sites)


def _parse(text: str) -> _Site | None:
    """Parse an `Origin` header or a pattern; None if it is neither."""
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return None
    scheme = match["scheme"] and match["scheme"].lower()
    port = int(match["port"]) if match["port"] else _PORTS.get(scheme or "")
    return _Site(scheme, _normal(match["host"]), port)


def _host_of(header: str) -> str | None:
    """The host in a `Host` header, without its port; None if the header is not valid."""
    match = _HOST.fullmatch(header)
    return match and _normal(match["host"])


def _normal(host: str) -> str:
    """Normalise a host for comparison."""
    if host.startswith("["):
        try:
            return f"[{ipaddress.IPv6Address(host[1:-1]).compressed}]"
        except ValueError:
            return host
    return host.lower()


def _can_be_listed(origin: str) -> bool:
    try:
        Origins([origin])
    except ConfigurationError:
        return False
    return len(quoted(origin)) == len(origin) + 2  # that is, shown in full


def _pattern(text: object) -> _Site:
    """Parse and check a configured origin.

    Raises:
        ConfigurationError: It is not an origin, or no origin can match it.
    """
    if not isinstance(text, str):
        _refuse(text, "it is not a str")
    site = _parse(text)
    if site is None:
        _refuse(
            text, "it is not a scheme, a host and an optional port, with nothing before or after"
        )
    if site.port is not None and not 0 < site.port < 65536:
        _refuse(text, "its port must be 1 to 65535")
    if site.scheme is not None and site.scheme not in _PORTS:
        if "*" in site.host or not site.host.isascii() or not site.host.isprintable():
            _refuse(text, "the origin of an application must be complete and in ASCII")
        return site
    starred = site.host.startswith("*.")
    host = _checked_host(text, site.host.removeprefix("*."), starred=starred)
    return _Site(site.scheme, f".{host}" if starred else host, site.port, starred)


def _checked_host(text: str, host: str, *, starred: bool) -> str:
    """Check that browsers can send a host; returns it in ASCII."""
    if not host:
        _refuse(text, "it has no host")
    if "*" in host:
        _refuse(text, "a star must replace whole labels at the beginning, as in '//*.example.com'")
    if host.startswith("["):
        if starred or not _is_ip(host[1:-1], 6):
            _refuse(text, f"{quoted(host, 60)} is not an IPv6 address")
        return host
    host = host if host.isascii() else _to_ascii(text, host)
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        _refuse(text, f"{quoted(host, 60)} is not a host")
    # Browsers parse a host with a number as its last label as an IPv4 address.
    if _NUMBER.fullmatch(labels[-1]) and (starred or not _is_ip(host, 4)):
        _refuse(text, f"{quoted(host, 60)} is neither a name nor an IPv4 address")
    return host


def _to_ascii(text: str, host: str) -> str:
    """Encode an international host name as browsers send it."""
    try:
        name = host.encode("idna").decode().lower() if _AMBIGUOUS.isdisjoint(host) else ""
    except UnicodeError:
        name = ""
    if not name:
        _refuse(text, "its host must be in ASCII, as browsers send it: 'xn--bcher-kva.example'")
    return name


def _is_ip(host: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(host).version == version
    except ValueError:
        return False


def _lower(text: object) -> object:
    return text.lower() if isinstance(text, str) else text


def _refuse(text: object, why: str) -> NoReturn:
    raise ConfigurationError(f"origins: {quoted(text)}: {why}; {_ACCEPTED}")
