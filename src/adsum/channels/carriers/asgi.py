"""Messages of ASGI that both carriers and the socket use."""

from adsum.channels.wire.connect import Scope
from adsum.httpanswer import ASGIReceive, ASGISend, Event, answer_http

#: Header of every response: a cache would hand the session of one client to another.
NO_STORE = (b"cache-control", b"no-store")


async def receive_next(receive: ASGIReceive) -> Event:
    """Receive the next message; a coroutine whatever kind of awaitable the server returns."""
    return await receive()


async def deny_websocket(scope: Scope, send: ASGISend, status: int) -> None:
    """Refuse a WebSocket upgrade. A close before the handshake is a 403 with every server.

    The response extension is used only for other statuses: some servers log each use as an error.
    """
    if status == 403 or "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.http.response.start", "status": status, "headers": [NO_STORE]})
    await send({"type": "websocket.http.response.body", "body": b""})


async def refuse_http(receive: ASGIReceive, send: ASGISend, status: int) -> None:
    """Answer an HTTP request with an empty body."""
    headers = [NO_STORE]
    if status == 426:
        headers += [(b"upgrade", b"websocket"), (b"connection", b"upgrade")]
    await answer_http(receive, send, status, headers)
