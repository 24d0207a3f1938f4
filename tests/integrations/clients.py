"""One interface to the HTTP clients that are tested."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp
import httpx

import adsum
from adsum.integrations.aiohttp import ServiceConnector
from adsum.integrations.httpx import ServiceTransport

URL = "svc://users"
#: Seconds for which a server may be silent.
PATIENCE = 1.0


class Answer(NamedTuple):
    status: int
    text: str
    #: The name of the http_server.py that has answered; empty for other servers.
    server: str = ""


class Client(ABC):
    """An HTTP client on a service; ends with its block.

    Args:
        services: Resolves the names.
        settings: Arguments of the transport or of the connector.
    """

    #: The base class of the errors of its library.
    errors: type[Exception]
    #: The error without an instance.
    connect_error: type[Exception]

    @abstractmethod
    def __init__(self, services: adsum.Services, **settings: Any) -> None: ...

    @abstractmethod
    async def fetch(
        self, path: str = "/", method: str = "GET", url: str = URL, **arguments: Any
    ) -> Answer:
        """Send a request, and read its response."""

    @abstractmethod
    async def open(self, path: str = "/") -> Any:
        """Send a request; returns the response without having read its body."""

    @abstractmethod
    async def close_response(self, response: Any) -> None:
        """Close a response that `open` returned."""

    @abstractmethod
    async def close(self) -> None:
        """Close the client."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class HttpxClient(Client):
    errors = httpx.HTTPError
    connect_error = httpx.ConnectError

    def __init__(self, services: adsum.Services, **settings: Any) -> None:
        mounts = {"svc://": ServiceTransport(services, **settings)}
        self.client = httpx.AsyncClient(mounts=mounts, timeout=PATIENCE)

    async def fetch(
        self, path: str = "/", method: str = "GET", url: str = URL, **arguments: Any
    ) -> Answer:
        if "data" in arguments:
            arguments["content"] = arguments.pop("data")
        arguments["follow_redirects"] = arguments.pop("follow", False)
        response = await self.client.request(method, url + path, **arguments)
        server = response.headers.get("X-Server", "")
        return Answer(response.status_code, response.text, server)

    async def open(self, path: str = "/") -> Any:
        return await self.client.send(self.client.build_request("GET", URL + path), stream=True)

    async def close_response(self, response: Any) -> None:
        await response.aclose()

    async def close(self) -> None:
        await self.client.aclose()


class AiohttpClient(Client):
    errors = aiohttp.ClientError
    connect_error = aiohttp.ClientConnectionError

    def __init__(self, services: adsum.Services, **settings: Any) -> None:
        timeout = aiohttp.ClientTimeout(sock_connect=PATIENCE, sock_read=PATIENCE)
        connector = ServiceConnector(services, **settings)
        self.session = aiohttp.ClientSession(connector=connector, timeout=timeout)

    async def fetch(
        self, path: str = "/", method: str = "GET", url: str = URL, **arguments: Any
    ) -> Answer:
        arguments["allow_redirects"] = arguments.pop("follow", False)
        async with self.session.request(method, url + path, **arguments) as response:
            server = response.headers.get("X-Server", "")
            return Answer(response.status, await response.text(), server)

    async def open(self, path: str = "/") -> Any:
        return await self.session.get(URL + path)

    async def close_response(self, response: Any) -> None:
        response.close()

    async def close(self) -> None:
        await self.session.close()


CLIENTS: list[type[Client]] = [HttpxClient, AiohttpClient]
