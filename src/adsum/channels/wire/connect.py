"""Reads the request of a connecting client: version, token, parameters, origin. Pure.

Everything here works on an ASGI scope: a dict with ``headers``, ``query_string`` and so on.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from adsum.channels.client import Client
from adsum.quoting import printable, quoted

from .frames import V2, Serializer, serializer_for
from .origins import Origins, RejectedError

Scope = Mapping[str, Any]

#: The subprotocol to accept, and the prefix of the subprotocol that carries a token.
SUBPROTOCOL, _TOKEN_PREFIX = "phoenix", "base64url.bearer.phx."
_AUTH_HEADER = "x-phoenix-authtoken"
#: Parameters that a URL may have. Some servers have no limit.
_MAX_PARAMS = 100
#: Bytes that a query may have, and all headers together. Some servers have no limits.
MAX_QUERY, MAX_HEADERS = 64 * 1024, 64 * 1024
#: Bytes counted for each header besides its name and value.
_HEADER_COST = 32
#: Names that nearly every client sends, each stored once for all clients.
_USUAL = {
    name.encode(): name
    for name in (
        "accept",
        "accept-encoding",
        "accept-language",
        "cache-control",
        "connection",
        "cookie",
        "forwarded",
        "host",
        "origin",
        "pragma",
        "sec-fetch-dest",
        "sec-fetch-mode",
        "sec-fetch-site",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
        "upgrade",
        "user-agent",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-real-ip",
    )
}
#: Parameters of the protocol, not passed to the application.
_OWN_PARAMS = ("vsn",)


def headers_of(scope: Scope) -> dict[str, str]:
    """The headers by name in lower case; repeated headers are joined.

    Raises:
        RejectedError: The headers are too large.
    """
    headers: dict[str, list[str]] = {}
    size = 0
    for raw_name, raw_value in scope["headers"]:
        size += len(raw_name) + len(raw_value) + _HEADER_COST
        if size > MAX_HEADERS:
            raise RejectedError("its headers are too large")
        name = _USUAL.get(raw_name) or raw_name.decode("latin-1").lower()
        headers.setdefault(name, []).append(raw_value.decode("latin-1"))
    return {
        name: ("; " if name == "cookie" else ", ").join(values) for name, values in headers.items()
    }


def address_of(scope: Scope) -> str:
    """The client's address, for the log. Behind some proxies it can be any text."""
    peer = scope.get("client")
    return printable(str(peer[0]), 60) if peer and peer[0] else "?"


def params_of(scope: Scope) -> dict[str, str]:
    """The parameters of the URL; of repeated ones the last counts.

    Raises:
        RejectedError: The parameters are too many, or too large.
    """
    raw = scope.get("query_string", b"")
    if len(raw) > MAX_QUERY:
        raise RejectedError("its parameters are too large")
    query = raw.decode("latin-1")
    try:
        return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_PARAMS))
    except ValueError:
        raise RejectedError("too many parameters") from None


def read_client(
    scope: Scope, origins: Origins, transport: str, version2: Serializer = V2
) -> tuple[Client, Serializer]:
    """The client of a request, and the serializer for its version of the protocol.

    Args:
        scope: The ASGI scope.
        origins: The sites that may connect.
        transport: ``websocket`` or ``longpoll``.
        version2: The serializer for version 2.

    Raises:
        RejectedError: Its origin, version or token is not accepted, or its headers or parameters
            are too many or too large.
    """
    headers, params = headers_of(scope), params_of(scope)
    origins.check(headers)
    serializer = serializer_for(params.get("vsn"), version2)
    if serializer is None:
        asked = quoted(params.get("vsn"), 20)
        raise RejectedError(f"it uses version {asked}: must be 1.0.0 or 2.0.0")
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
    """Decode base64 without padding, in either alphabet.

    phoenix.js announces base64url and uses the standard alphabet.
    """
    padded = text.replace("+", "-").replace("/", "_") + "=" * (-len(text) % 4)
    try:
        return base64.b64decode(padded.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise RejectedError("its token is not base64url") from None
