"""`Client`: a connected client, with its request data and the application's assigns."""

from dataclasses import dataclass, field
from typing import Any

from adsum.quoting import quoted
from adsum.values.limits import MAX_NAME
from adsum.values.names import checked_name


@dataclass(slots=True, repr=False)
class Client:
    """One browser, phone or program that is connected.

    The `connect` function of the socket receives it and may set `id` and `assigns`. Every channel
    of the connection has it as ``self.client``.

    Attributes:
        params: Parameters of the URL, set with phoenix.js's option ``params``.
        headers: Headers of the request, by name in lower case.
        token: Token sent outside the URL, set with phoenix.js's option ``authToken``.
        transport: ``websocket`` or ``longpoll``.
        address: The host that the client connects from, as the server reports it.
        id: Id shared by all connections of, say, one user: ``Socket.disconnect`` closes the
            connections of an id. A text of 1 to 1,024 characters; any other value raises TypeError
            or ValueError.
        assigns: Data of the application for its channels.
    """

    params: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    transport: str = "websocket"
    address: str | None = None
    id: str | None = None
    assigns: dict[str, Any] = field(default_factory=dict)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "id" and value is not None:
            value = checked_name(value, "id", MAX_NAME)  # a number would match no `disconnect`
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        # Without the request data, which contains tokens and cookies.
        return f"<Client {quoted(self.id)} at {quoted(self.address)} over {self.transport}>"
