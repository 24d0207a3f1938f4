"""Addresses to listen on and to dial: parses and formats `host:port`, `[v6]:port`, `unix:/path`."""

import ipaddress
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NoReturn

from adsum.errors import ConfigurationError
from adsum.quoting import quoted

#: Bytes of the longest path that the kernel accepts for a Unix socket, without the closing zero.
SUN_PATH_LIMIT = 103 if sys.platform == "darwin" else 107

_ACCEPTED = "must be host:port, host:first-last, [ipv6]:port or unix:/absolute/path"
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?", re.ASCII)
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)
_WILDCARDS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - recognised here, never bound to by default
_LONGEST_HOST = 253


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A TCP address, or, for listening, a host with a range of ports to choose from.

    Attributes:
        host: A name or an IP address without brackets; empty means every interface.
        port: The port; 0 lets the kernel choose when listening.
        last_port: The end of the range, inclusive; equal to `port` when there is no range.
    """

    host: str
    port: int
    last_port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        ports = f"{self.port}" if self.port == self.last_port else f"{self.port}-{self.last_port}"
        return f"{host}:{ports}"

    @property
    def is_loopback(self) -> bool:
        """Whether only processes of this host can reach it."""
        if self.host.lower().rstrip(".") == "localhost":
            return True
        literal = _literal(self.host)
        if literal is None:
            return False
        mapped = getattr(literal, "ipv4_mapped", None)
        return bool((mapped or literal).is_loopback)

    @property
    def is_wildcard(self) -> bool:
        """Whether the host means every interface, so that peers need another host to dial."""
        literal = _literal(self.host)
        return self.host in _WILDCARDS or (literal is not None and literal.is_unspecified)

    def with_host(self, host: str) -> "TcpAddress":
        """The same ports on another host, such as a peer's source address for its wildcard."""
        return replace(self, host=host)

    def each_port(self) -> Iterator["TcpAddress"]:
        """Yield one address for every port of the range, in order."""
        for port in range(self.port, self.last_port + 1):
            yield TcpAddress(self.host, port, port)


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix socket.

    Attributes:
        path: The absolute path of the socket.
    """

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"

    @property
    def is_loopback(self) -> bool:
        """Always true: a Unix socket never leaves the host."""
        return True

    @property
    def is_wildcard(self) -> bool:
        """Always false."""
        return False

    def with_host(self, host: str) -> "UnixAddress":
        """The same address: a path has no host."""
        return self

    def each_port(self) -> Iterator["UnixAddress"]:
        """Yield only this address: a path has no ports."""
        yield self


Address = TcpAddress | UnixAddress


def parse(text: str, field: str = "listen") -> Address:
    """Parse an address from a setting or from a peer.

    Args:
        text: `host:port`, `host:first-last`, `[v6]:port` or `unix:/path`.
        field: The setting that it comes from, named in the error.

    Returns:
        The address; `str()` of it gives the canonical text, which parses to an equal address.

    Raises:
        ConfigurationError: It is none of these; names the field, the value and the accepted forms.

    Example:
        >>> parse("localhost:7400-7407").last_port
        7407
    """
    if not isinstance(text, str):
        _refuse(field, text, "not a string")
    if text.startswith("unix:"):
        return _parse_unix(text, field)
    if "://" in text:
        _refuse(field, text, "an address has no scheme")
    host, separator, ports = text.rpartition(":")
    if not separator:
        _refuse(field, text, "the port is missing")
    first, last = _parse_ports(ports, text, field)
    return TcpAddress(_parse_host(host, text, field), first, last)


def parse_one(text: str, field: str) -> Address:
    """Parse an address that can be dialled: one port, and not port 0.

    Raises:
        ConfigurationError: It cannot be parsed, or can only be listened on.
    """
    address = parse(text, field)
    if isinstance(address, TcpAddress) and not 0 < address.port == address.last_port:
        accepted = "must be host:port, [ipv6]:port or unix:/absolute/path"
        raise ConfigurationError(
            f"{field}={quoted(text)}: only one port, and not 0, can be dialled; {accepted}"
        )
    return address


def _parse_unix(text: str, field: str) -> UnixAddress:
    path = text.removeprefix("unix:")
    if path.startswith("//") and not path.startswith("///"):
        _refuse(field, text, "an address has no scheme, and a Unix socket no host")
    if not path.startswith("/") or "\0" in path:
        _refuse(field, text, "the path of a Unix socket must be absolute")
    length = len(os.fsencode(path))
    if length > SUN_PATH_LIMIT:
        _refuse(
            field,
            text,
            f"its path has {length} bytes, the system allows {SUN_PATH_LIMIT}; shorten it",
        )
    return UnixAddress(path)


def _parse_ports(ports: str, text: str, field: str) -> tuple[int, int]:
    match = _PORTS.fullmatch(ports)
    if match is None:
        _refuse(field, text, f"{quoted(ports)} is not a port")
    first = int(match[1])
    last = int(match[2]) if match[2] else first
    if last > 65535 or first > last or (first == 0 and last != 0):
        _refuse(field, text, "ports must be 1 to 65535, in an ascending range, or 0 for any")
    return first, last


def _parse_host(host: str, text: str, field: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            _refuse(field, text, f"{quoted(host)} is not an IPv6 address")
    if ":" in host:
        _refuse(field, text, "an IPv6 address must be in brackets, as [::1]:7400")
    if host and (len(host) > _LONGEST_HOST or not _HOST.fullmatch(host)):
        _refuse(field, text, f"{quoted(host)} is not a host")
    return host


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _refuse(field: str, value: object, why: str) -> NoReturn:
    raise ConfigurationError(f"{field}={quoted(value)}: {why}; {_ACCEPTED}")


def plain_ip(host: str) -> str:
    """The IPv4 address of an IPv4-mapped IPv6 address, as a dual-stack listener reports peers.

    Any other text is returned unchanged.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
