"""A connector for aiohttp: requests to ``svc://users/path`` go to an instance of the service.

The connector only connects. So it repeats refused connections on other instances, and aiohttp
itself repeats an idempotent request once when its connection is lost: it connects again, and this
resolves again.
"""

from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from adsum.arguments import instance
from adsum.errors import ConfigurationError, NodeNotRunningError, NoInstanceError
from adsum.services import Attempt, Attempts, Instance, Services

from .httpaddress import SCHEME, HttpAddress, parse_address

try:
    import aiohttp
    from yarl import URL
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'adsum.integrations.aiohttp needs aiohttp: pip install "adsum[aiohttp]"', name=error.name
    ) from error

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

__all__ = ["ServiceConnector"]


class ServiceConnector(aiohttp.TCPConnector):
    """A connector of `aiohttp.ClientSession` for URLs whose host is the name of a service.

    Each request goes to an instance that `Services.resolve` would pick; it is in use until its
    response is read or released. If the connection fails, another instance is tried. If a
    connection is lost after an idempotent request was sent (GET, HEAD, OPTIONS, TRACE, PUT or
    DELETE) and before its response has begun, aiohttp sends it once more, and the instance is
    chosen again. Any other request that was sent is not repeated.

    The header ``Host`` is that of the instance, unless the request has its own. Addresses are those
    of `adsum.integrations.httpx.ServiceTransport`. Other URLs work as usual.

    Make it in the event loop of the node.

    Args:
        services: Resolves the names.
        tag: Only instances with this tag.
        attempts: Instances at most to which one request connects, from 1 to 100.
        pick: The strategy, by default that of `services`.
        settings: Arguments of `aiohttp.TCPConnector`.

    Raises:
        ConfigurationError: An argument is wrong. A request raises it if the host cannot be the name
            of a service.
        aiohttp.ClientConnectionError: Raised by a request if no instance is left, or the node is
            not running; its cause is the `NoInstanceError` or the `NodeNotRunningError`.

    Example:
        >>> import asyncio, adsum, aiohttp
        >>> from adsum.integrations.aiohttp import ServiceConnector
        >>> async def main():
        ...     node = adsum.Node(siblings=False)
        ...     connector = ServiceConnector(adsum.Services(node))
        ...     async with node, aiohttp.ClientSession(connector=connector) as session:
        ...         try:
        ...             await session.get("svc://users/1")
        ...         except aiohttp.ClientConnectionError as error:
        ...             return str(error)
        >>> asyncio.run(main())
        "no instance of 'users' accepts requests: 0 listed"
    """

    allowed_protocol_schema_set = aiohttp.TCPConnector.allowed_protocol_schema_set | {SCHEME}

    def __init__(
        self,
        services: Services,
        *,
        tag: str | None = None,
        attempts: int = 3,
        pick: str | None = None,
        **settings: Any,
    ) -> None:
        self._services = instance("services", services, Services, "an adsum.Services")
        self._tag = tag
        self._strategy = pick
        self._most = attempts
        self._attempts("any")  # checks them
        # Requests under way for which a new connection was begun.
        self._dialled = WeakSet["ClientRequest"]()
        super().__init__(**settings)

    async def connect(
        self,
        req: "ClientRequest",
        traces: "list[Trace]",
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # of the base class
    ) -> "Connection":
        """Connect to an instance; called by the session."""
        if req.url.scheme != SCHEME:
            return await super().connect(req, traces, timeout)
        url = req.url
        attempts = self._attempts(_service_of(url))
        attempt = _first(attempts)
        while True:
            try:
                return await self._connect(attempt, url, req, traces, timeout)
            except BaseException as error:
                if isinstance(error, TimeoutError) and req not in self._dialled:
                    attempt.release()  # it is this process that has too few connections
                    raise
                if not attempt.raised(error):
                    raise
                attempt = next(attempts)

    async def _create_connection(
        self,
        req: "ClientRequest",
        traces: "list[Trace]",
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # of the base class
    ) -> "ResponseHandler":
        self._dialled.add(req)
        return await super()._create_connection(req, traces, timeout)

    def _attempts(self, name: str) -> Attempts:
        # Whatever fails before there is a connection, nothing was sent.
        errors = (OSError, aiohttp.ClientConnectionError, aiohttp.InvalidURL)
        return self._services.attempts(
            name, tag=self._tag, attempts=self._most, pick=self._strategy, unsent=errors
        )

    async def _connect(
        self,
        attempt: Attempt,
        url: URL,
        req: "ClientRequest",
        traces: "list[Trace]",
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109
    ) -> "Connection":
        address = _address_of(attempt.instance)
        _readdress(req, url, address)
        self._dialled.discard(req)
        if address.socket is None:
            connection = await super().connect(req, traces, timeout)
        else:
            # It holds no connection beyond this one, so there is nothing to close later.
            unix = aiohttp.UnixConnector(address.socket, force_close=True)
            self._dialled.add(req)
            connection = await unix.connect(req, traces, timeout)
        connection.add_callback(partial(_ended, attempt, connection, req))
        return connection


def _ended(attempt: Attempt, connection: "Connection", req: "ClientRequest") -> None:
    """End an attempt with its connection, which is still attached to its protocol here."""
    protocol = connection.protocol
    error = None if protocol is None else protocol.exception()
    if error is not None:
        attempt.failed(error, sent=True)
    elif req.response is not None and req.response.status is not None:
        attempt.succeeded()
    else:  # cancelled, or out of time in all, before the instance has answered
        attempt.release()


def _service_of(url: URL) -> str:
    if url.explicit_port is not None:
        raise aiohttp.InvalidURL(url, "the name of a service has no port")
    return url.raw_host or ""


def _first(attempts: Attempts) -> Attempt:
    try:
        return next(attempts)
    except (NoInstanceError, NodeNotRunningError) as error:
        raise aiohttp.ClientConnectionError(str(error)) from error


def _address_of(found: Instance) -> HttpAddress:
    try:
        return parse_address(found.address)
    except ConfigurationError as error:
        raise aiohttp.InvalidURL(found.address, str(error)) from error


def _readdress(req: "ClientRequest", url: URL, address: HttpAddress) -> None:
    """Send a request to an address instead of its present one.

    Args:
        req: The request.
        url: The URL with the name of the service.
        address: The address.
    """
    port = address.port or (443 if address.scheme == "https" else 80)
    before = req.url.host_port_subcomponent
    req.url = URL.build(
        scheme=address.scheme,
        host=address.host,
        port=port,
        path=address.prefix + url.raw_path,
        query_string=url.raw_query_string,
        encoded=True,
    )
    if req.headers.get("Host") == before:
        req.headers["Host"] = req.url.host_port_subcomponent or ""
