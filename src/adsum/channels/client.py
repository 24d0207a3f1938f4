"""Who is at the other end of a connection, and what the application makes of that."""

from dataclasses import dataclass, field
from typing import Any

from adsum.quoting import quoted
from adsum.replication.jsontext import checked_name
from adsum.replication.limits import MAX_NAME


@dataclass(slots=True, repr=False)
class Client:
    """One browser, phone or program that is connected.

    The function that authorises gets it, may fill in `id` and `values`, and every channel of the
    connection has it as ``self.client``.

    Attributes:
        params: What the client put into its URL, as phoenix.js's option ``params``.
        headers: What came with the request, by name in lower case.
        token: What came outside the URL, as phoenix.js's option ``authToken``.
        transport: ``websocket`` or ``longpoll``.
        address: The host that the client connects from, as the server knows it.
        id: Names all connections of, say, one user: ``Socket.disconnect`` closes those of an id.
            A text of 1 to 1,024 characters; anything else raises TypeError or ValueError.
        values: Whatever the application wants its channels to know.
    """

    params: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    transport: str = "websocket"
    address: str | None = None
    id: str | None = None
    values: dict[str, Any] = field(default_factory=dict)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "id" and value is not None:
            value = checked_name(value, "id", MAX_NAME)  # a number would match no `disconnect`
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        # Not what came with the request: tokens and cookies are among it.
        return f"<Client {quoted(self.id)} at {quoted(self.address)} over {self.transport}>"
