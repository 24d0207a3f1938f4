"""Transports for httpx: requests to ``svc://users/path`` go to an instance of the service.

A request takes its use of an instance from its first byte until its response is closed, so
``least_used`` counts streams too. `Services.attempts` decides about repeats; this file only maps
errors of httpx to "nothing was sent" and "something was sent".
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, TypedDict, cast

from adsum.arguments import instance, refuse
from adsum.errors import ConfigurationError, NodeNotRunningError, NoInstanceError
from adsum.portal import Portal
from adsum.services import Attempt, Attempts, Instance, Services

from .httpaddress import IDEMPOTENCY_KEY, IDEMPOTENT_METHODS, SCHEME, HttpAddress, parse_address

try:
    import httpx
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'adsum.integrations.httpx needs httpx: pip install "adsum[httpx]"', name=error.name
    ) from error

__all__ = ["ServiceTransport", "SyncServiceTransport"]

#: Errors after which nothing of the request was sent.
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol)
#: Errors of an instance after which the request may have been executed. `PoolTimeout` is none: it
#: is this process that has too few connections.
_FAILURES = (
    httpx.ReadError,
    httpx.WriteError,
    httpx.CloseError,
    httpx.ReadTimeout,
    httpx.WriteTimeout,
    httpx.RemoteProtocolError,
)


class _Arguments(TypedDict):
    tag: str | None
    attempts: int
    pick: str | None


class _Resolving:
    """The part of both transports that neither sends nor waits."""

    def __init__(
        self,
        services: Services,
        *,
        tag: str | None = None,
        attempts: int = 3,
        pick: str | None = None,
    ) -> None:
        self._services = instance("services", services, Services, "an adsum.Services")
        self._arguments: _Arguments = {"tag": tag, "attempts": attempts, "pick": pick}
        services.attempts("any", **self._arguments)  # checks them

    def _attempts(self, request: httpx.Request) -> Attempts:
        return self._services.attempts(
            _service_of(request),
            idempotent=_is_repeatable(request),
            unsent=_UNSENT,
            failures=_FAILURES,
            **self._arguments,
        )


class ServiceTransport(_Resolving, httpx.AsyncBaseTransport):
    """A transport of `httpx.AsyncClient` for URLs whose host is the name of a service.

    Each request goes to an instance that `Services.resolve` would pick; it is in use until the
    response is closed. A request is repeated on another instance

    - after a refused connection or another failure to connect, always;
    - after it was sent, if it is idempotent and its body is bytes: the method is GET, HEAD,
      OPTIONS, TRACE, PUT or DELETE, or there is a header ``Idempotency-Key``. The extension
      ``{"idempotent": True}`` or False of a request takes precedence.

    Every response is an answer, whatever its status; a request whose response breaks off is not
    repeated. The header ``Host`` is that of the instance, unless the request has its own. The
    timeouts of the client hold for each attempt.

    Addresses are ``http://host:port`` or ``https://host:port``, with or without a path, which
    precedes that of the request; ``host:port``; or ``unix:/path``, with one connection for each
    request.

    Use it in the event loop of the node.

    Args:
        services: Resolves the names.
        tag: Only instances with this tag.
        attempts: Attempts at most, from 1 to 100.
        pick: The strategy, by default that of `services`.
        settings: Arguments of `httpx.AsyncHTTPTransport`, such as `verify`, `http2`, `limits`.

    Raises:
        ConfigurationError: An argument is wrong. A request raises it if the host cannot be the name
            of a service.
        httpx.ConnectError: Raised by a request if no instance is left, or the node is not running;
            its cause is the `NoInstanceError` or the `NodeNotRunningError`.

    Example:
        >>> import asyncio, adsum, httpx
        >>> from adsum.integrations.httpx import ServiceTransport
        >>> async def main():
        ...     node = adsum.Node(siblings=False)
        ...     mounts = {"svc://": ServiceTransport(adsum.Services(node))}
        ...     async with node, httpx.AsyncClient(mounts=mounts) as client:
        ...         try:
        ...             await client.get("svc://users/1")
        ...         except httpx.ConnectError as error:
        ...             return str(error)
        >>> asyncio.run(main())
        "no instance of 'users' accepts requests: 0 listed"
    """

    def __init__(
        self,
        services: Services,
        *,
        tag: str | None = None,
        attempts: int = 3,
        pick: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(services, tag=tag, attempts=attempts, pick=pick)
        self._tcp = httpx.AsyncHTTPTransport(**settings)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request to an instance; see the class."""
        attempts = self._attempts(request)
        attempt = _first(attempts, request)
        while True:
            try:
                return await self._send(attempt, request)
            except BaseException as error:
                if not attempt.raised(error):
                    raise
                attempt = next(attempts)

    async def aclose(self) -> None:
        """Close all idle connections."""
        await self._tcp.aclose()

    async def _send(self, attempt: Attempt, request: httpx.Request) -> httpx.Response:
        address = _address_of(attempt.instance, request)
        transport = self._tcp
        if address.socket is not None:
            transport = httpx.AsyncHTTPTransport(uds=address.socket, verify=False)
        try:
            sent = _readdressed(request, address)
            response = await transport.handle_async_request(sent)
        except BaseException:
            if transport is not self._tcp:
                await transport.aclose()
            raise
        _keep_in_service(response, request, sent, address)
        body = cast(httpx.AsyncByteStream, response.stream)
        response.stream = _AsyncStream(body, attempt, None if transport is self._tcp else transport)
        return response


class _AsyncStream(httpx.AsyncByteStream):
    """The body of a response; ends the attempt when it is closed."""

    def __init__(
        self,
        stream: httpx.AsyncByteStream,
        attempt: Attempt,
        transport: httpx.AsyncHTTPTransport | None,
    ) -> None:
        self._stream = stream
        self._attempt = attempt
        # That of a Unix socket, closed with the response.
        self._transport = transport

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._stream:
                yield part
        except BaseException as error:
            self._attempt.raised(error)
            raise

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._attempt.succeeded()
            if self._transport is not None:
                await self._transport.aclose()


class SyncServiceTransport(_Resolving, httpx.BaseTransport):
    """As `ServiceTransport`, for `httpx.Client` in threads: it resolves through a `Portal`.

    Args:
        portal: Reaches the node of `services` from the calling thread.
        services: Resolves the names.
        tag: Only instances with this tag.
        attempts: Attempts at most, from 1 to 100.
        pick: The strategy, by default that of `services`.
        settings: Arguments of `httpx.HTTPTransport`.

    Raises:
        ConfigurationError: As in `ServiceTransport`.
        httpx.ConnectError: As in `ServiceTransport`.

    Example:
        >>> import adsum, httpx
        >>> from adsum.integrations.httpx import SyncServiceTransport
        >>> node = adsum.Node(siblings=False)
        >>> services = adsum.Services(node)
        >>> with adsum.Portal(node) as portal:
        ...     mounts = {"svc://": SyncServiceTransport(portal, services)}
        ...     with httpx.Client(mounts=mounts) as client:
        ...         try:
        ...             client.get("svc://users/1")
        ...         except httpx.ConnectError as error:
        ...             print(error)
        no instance of 'users' accepts requests: 0 listed
    """

    def __init__(
        self,
        portal: Portal,
        services: Services,
        *,
        tag: str | None = None,
        attempts: int = 3,
        pick: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(services, tag=tag, attempts=attempts, pick=pick)
        self._portal = instance("portal", portal, Portal, "an adsum.Portal")
        if portal.node is not services.node:
            refuse("portal", portal, "one of the node of the services")
        self._tcp = httpx.HTTPTransport(**settings)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request to an instance; see `ServiceTransport`."""
        attempts = self._attempts(request)
        attempt = self._first(attempts, request)
        while True:
            try:
                return self._send(attempt, request)
            except BaseException as error:
                following = self._following(attempts, attempt, error)
                if following is None:
                    raise
                attempt = following

    def close(self) -> None:
        """Close all idle connections."""
        self._tcp.close()

    def _first(self, attempts: Attempts, request: httpx.Request) -> Attempt:
        try:
            return self._portal.call(_first, attempts, request)
        except (NodeNotRunningError, TimeoutError) as error:  # of the portal
            raise httpx.ConnectError(str(error), request=request) from error

    def _following(
        self, attempts: Attempts, attempt: Attempt, error: BaseException
    ) -> Attempt | None:
        """End an attempt by an error; returns the next one, or None if the error is the result."""
        try:
            # One call: the node may stop between two.
            return self._portal.call(_following, attempts, attempt, error)
        except (NodeNotRunningError, TimeoutError):
            return None

    def _raised(self, attempt: Attempt, error: BaseException) -> None:
        with suppress(NodeNotRunningError, TimeoutError):
            self._portal.call(attempt.raised, error)

    def _succeeded(self, attempt: Attempt) -> None:
        with suppress(NodeNotRunningError, TimeoutError):
            self._portal.call(attempt.succeeded)

    def _send(self, attempt: Attempt, request: httpx.Request) -> httpx.Response:
        address = _address_of(attempt.instance, request)
        transport = self._tcp
        if address.socket is not None:
            transport = httpx.HTTPTransport(uds=address.socket, verify=False)
        try:
            sent = _readdressed(request, address)
            response = transport.handle_request(sent)
        except BaseException:
            if transport is not self._tcp:
                transport.close()
            raise
        _keep_in_service(response, request, sent, address)
        body = cast(httpx.SyncByteStream, response.stream)
        ends = partial(self._raised, attempt), partial(self._succeeded, attempt)
        response.stream = _Stream(body, *ends, None if transport is self._tcp else transport)
        return response


class _Stream(httpx.SyncByteStream):
    """The body of a response; ends the attempt when it is closed."""

    def __init__(
        self,
        stream: httpx.SyncByteStream,
        raised: Callable[[BaseException], None],
        succeeded: Callable[[], None],
        transport: httpx.HTTPTransport | None,
    ) -> None:
        self._stream = stream
        self._raised = raised
        self._succeeded = succeeded
        # That of a Unix socket, closed with the response.
        self._transport = transport

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        except BaseException as error:
            self._raised(error)
            raise

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            self._succeeded()
            if self._transport is not None:
                self._transport.close()


def _service_of(request: httpx.Request) -> str:
    """The name of the service in a URL.

    Raises:
        httpx.UnsupportedProtocol: The URL has another scheme, or a port.
    """
    url = request.url
    if url.scheme != SCHEME or url.port is not None:
        text = (
            f"{str(url)!r}: must begin with {SCHEME}:// and the name of a service, without a port"
        )
        raise httpx.UnsupportedProtocol(text, request=request)
    return url.host


def _is_repeatable(request: httpx.Request) -> bool:
    """Whether a request may be sent again after it was sent."""
    known = request.method in IDEMPOTENT_METHODS or IDEMPOTENCY_KEY in request.headers
    stated = request.extensions.get("idempotent", known)
    return bool(stated) and isinstance(request.stream, httpx.ByteStream)


def _first(attempts: Attempts, request: httpx.Request) -> Attempt:
    try:
        return next(attempts)
    except (NoInstanceError, NodeNotRunningError) as error:
        raise httpx.ConnectError(str(error), request=request) from error


def _following(attempts: Attempts, attempt: Attempt, error: BaseException) -> Attempt | None:
    return next(attempts) if attempt.raised(error) else None


def _address_of(found: Instance, request: httpx.Request) -> HttpAddress:
    try:
        return parse_address(found.address)
    except ConfigurationError as error:
        raise httpx.UnsupportedProtocol(str(error), request=request) from error


def _readdressed(request: httpx.Request, address: HttpAddress) -> httpx.Request:
    """The request, sent to an address.

    Raises:
        httpx.UnsupportedProtocol: The address is no URL for httpx, as ``http://10-0-0-5``.
    """
    try:
        url = request.url.copy_with(
            scheme=address.scheme,
            host=address.host,
            port=address.port,
            raw_path=address.prefix.encode() + request.url.raw_path,
        )
    except httpx.InvalidURL as error:
        raise httpx.UnsupportedProtocol(str(error), request=request) from error
    headers = request.headers.copy()
    if headers.get("Host") == request.url.netloc.decode():
        headers["Host"] = url.netloc.decode()
    return httpx.Request(
        request.method, url, headers=headers, stream=request.stream, extensions=request.extensions
    )


def _keep_in_service(
    response: httpx.Response, request: httpx.Request, sent: httpx.Request, address: HttpAddress
) -> None:
    """Complete a relative redirect: httpx cannot join it to a URL of our scheme."""
    location = response.headers.get("Location", "")
    try:
        if not location or httpx.URL(location).is_absolute_url:
            return
        target = sent.url.join(location)
    except httpx.InvalidURL:
        return  # httpx refuses it, if it follows it
    path, prefix = target.raw_path, address.prefix.encode()
    if target.netloc == sent.url.netloc and path.startswith(prefix + b"/"):
        target = request.url.copy_with(
            raw_path=path.removeprefix(prefix), fragment=target.fragment or None
        )
    response.headers["Location"] = str(target)
