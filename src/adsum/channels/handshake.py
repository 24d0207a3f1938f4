"""What a client says when it connects, and whether it may: version, token, origin. Pure.

Everything here works on an ASGI scope: a dict with ``headers``, ``query_string`` and so on.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from adsum.errors import ConfigurationError
from adsum.quoting import printable, quoted

from .client import Client
from .frames import Serializer, serializer_for

Scope = Mapping[str, Any]

#: The subprotocol that is chosen, and the one that carries a token.
SUBPROTOCOL, _TOKEN_PREFIX = "phoenix", "base64url.bearer.phx."
_AUTH_HEADER = "x-phoenix-authtoken"
#: Parameters and headers of a connection; servers have limits of their own for headers.
_MAX_PARAMS = 100
#: What belongs to the protocol, and not to the application.
_OWN_PARAMS = ("vsn",)


class RejectedError(Exception):
    """The client may not connect; the message is for the log."""


class Origins:
    """Which web sites may connect. Clients that are no browsers send no origin, and may.

    Args:
        accepted: As ``["https://example.com", "//*.example.com"]``: with or without a scheme, and
            with a star for any subdomain; ``["*"]`` for all; None for the host that is asked.

    Raises:
        ConfigurationError: An origin is none.
    """

    def __init__(self, accepted: Sequence[str] | None) -> None:
        if isinstance(accepted, str):
            raise ConfigurationError(f"origins={accepted!r}: accepted is a list of them, or None")
        self._accepted = None if accepted is None else [_origin(one) for one in accepted]

    def check(self, headers: dict[str, str]) -> None:
        """Check where a request comes from.

        Raises:
            RejectedError: It is not accepted; says how to accept it.
        """
        origin, host = headers.get("origin"), headers.get("host")
        if not self.accepts(origin, host):
            raise RejectedError(
                f"its origin {quoted(origin)} is not that of {quoted(host)}; "
                f"to allow it: Socket(..., origins=[{quoted(origin)}])"
            )

    def accepts(self, origin: str | None, host: str | None) -> bool:
        """Whether a page of an origin may connect to a host."""
        if origin is None:
            return True
        try:
            site = urlsplit(origin)
            name = site.hostname
            if self._accepted is None:
                return name is not None and name == urlsplit(f"//{host or ''}").hostname
            return any(_matches(site.scheme, name, site.port, one) for one in self._accepted)
        except ValueError:
            return False


def headers_of(scope: Scope) -> dict[str, str]:
    """The headers by name in lower case; those that came more than once are joined."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name in headers:
            value = f"{headers[name]}{'; ' if name == 'cookie' else ', '}{value}"
        headers[name] = value
    return headers


def address_of(scope: Scope) -> str:
    """Where a client is, for the log. Behind some proxies it can be any text."""
    peer = scope.get("client")
    return printable(str(peer[0]), 60) if peer and peer[0] else "?"


def params_of(scope: Scope) -> dict[str, str]:
    """The parameters in the URL; the last one of a name counts.

    Raises:
        RejectedError: There are too many.
    """
    query = scope.get("query_string", b"").decode("latin-1")
    try:
        return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_PARAMS))
    except ValueError:
        raise RejectedError("too many parameters") from None


def read(scope: Scope, origins: Origins, transport: str) -> tuple[Client, Serializer]:
    """The client and the version of the protocol that it speaks.

    Raises:
        RejectedError: Its origin, version or token is not accepted.
    """
    headers, params = headers_of(scope), params_of(scope)
    origins.check(headers)
    serializer = serializer_for(params.get("vsn"))
    if serializer is None:
        asked = quoted(params.get("vsn"), 20)
        raise RejectedError(f"it speaks version {asked}, not 1.0.0 or 2.0.0")
    token = _token_of(scope, headers)
    peer = scope.get("client")
    own = {name: value for name, value in params.items() if name not in _OWN_PARAMS}
    client = Client(own, headers, token, transport, peer[0] if peer else None)
    return client, serializer


def _token_of(scope: Scope, headers: dict[str, str]) -> str | None:
    for protocol in scope.get("subprotocols", ()):
        if protocol.startswith(_TOKEN_PREFIX):
            return _decode_token(protocol.removeprefix(_TOKEN_PREFIX))
    return headers.get(_AUTH_HEADER)


def _decode_token(text: str) -> str:
    """Without padding, and in either alphabet: phoenix.js says base64url and uses the other one."""
    padded = text.replace("+", "-").replace("/", "_") + "=" * (-len(text) % 4)
    try:
        return base64.b64decode(padded.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise RejectedError("its token is not base64url") from None


def _origin(text: str) -> tuple[str, str, int | None]:
    """The scheme, host and port of a configured origin; an empty scheme stands for any."""
    if text == "*":
        return "", "*", None
    try:
        parts = urlsplit(text)
        name, port = parts.hostname, parts.port
    except ValueError:
        name = port = None
        parts = urlsplit("")
    if not name:
        raise ConfigurationError(
            f"origins: {text!r} is none; accepted are 'https://example.com', '//*.example.com', '*'"
        )
    return parts.scheme, name, port


def _matches(
    scheme: str, name: str | None, port: int | None, accepted: tuple[str, str, int | None]
) -> bool:
    wanted_scheme, wanted_name, wanted_port = accepted
    if wanted_name == "*":
        return True
    if name is None or (wanted_scheme and scheme != wanted_scheme):
        return False
    if wanted_port is not None and port != wanted_port:
        return False
    if wanted_name.startswith("*."):
        return name.endswith(wanted_name[1:])
    return name == wanted_name
