"""Requests from threads: an `httpx.Client` that resolves through a portal."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from socketserver import UnixStreamServer
from threading import Thread
from typing import Any

import httpx
import pytest

import adsum
from adsum.integrations.httpx import SyncServiceTransport


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = str(self.server.server_address).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *arguments: Any) -> None: ...


class UnixHandler(Handler):
    def address_string(self) -> str:
        return "unix"


class Threads(ThreadingHTTPServer):
    """An HTTP server in threads.

    A backlog of five would refuse connections of a busy client.
    """

    request_queue_size = 100
    daemon_threads = True


@contextmanager
def serving(server: HTTPServer | UnixStreamServer) -> Iterator[None]:
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def portal_and_client(*addresses: str) -> Iterator[tuple[adsum.Portal, adsum.Services, Any]]:
    """A client for a service at some addresses."""
    node = adsum.Node(siblings=False)
    services = adsum.Services(node)
    with adsum.Portal(node) as portal:
        for address in addresses:
            portal.call(services.register, "users", address)
        transport = SyncServiceTransport(portal, services)
        with httpx.Client(mounts={"svc://": transport}) as client:
            yield portal, services, client


def test_requests_from_threads_are_spread_over_the_instances() -> None:
    with ExitStack() as stack:
        servers = [Threads(("127.0.0.1", 0), Handler) for _ in range(3)]
        for server in servers:
            stack.enter_context(serving(server))
        addresses = [f"127.0.0.1:{server.server_port}" for server in servers]
        _, _, client = stack.enter_context(portal_and_client(*addresses))
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda _: client.get("svc://users/").text, range(60)))
        assert {answers.count(answer) for answer in answers} <= set(range(10, 31))
        assert len(set(answers)) == 3


def test_refused_connection_is_repeated_in_a_thread() -> None:
    with ExitStack() as stack:
        gone, server = Threads(("127.0.0.1", 0), Handler), Threads(("127.0.0.1", 0), Handler)
        gone.server_close()
        stack.enter_context(serving(server))
        addresses = [f"http://127.0.0.1:{port}" for port in (gone.server_port, server.server_port)]
        _, _, client = stack.enter_context(portal_and_client(*addresses))
        for _ in range(4):
            assert client.post("svc://users/", content=b"1").status_code == 200


def test_portal_that_ends_between_two_attempts_raises_no_error_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ExitStack() as stack:
        gone, server = Threads(("127.0.0.1", 0), Handler), Threads(("127.0.0.1", 0), Handler)
        gone.server_close()
        stack.enter_context(serving(server))
        addresses = [f"127.0.0.1:{port}" for port in (gone.server_port, server.server_port)]
        portal, _, client = stack.enter_context(portal_and_client(*addresses))
        call, calls = portal.call, list[Any]()

        def fail_after_two(function: Any, *arguments: Any) -> Any:
            calls.append(function)
            if len(calls) > 2:
                raise adsum.NodeNotRunningError("stopped")
            return call(function, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(portal, "call", fail_after_two)
            assert client.get("svc://users/").status_code == 200


def test_open_response_of_a_thread_counts_as_a_use() -> None:
    with ExitStack() as stack:
        servers = [Threads(("127.0.0.1", 0), Handler) for _ in range(2)]
        for server in servers:
            stack.enter_context(serving(server))
        addresses = [f"127.0.0.1:{server.server_port}" for server in servers]
        _, _, client = stack.enter_context(portal_and_client(*addresses))
        with client.stream("GET", "svc://users/") as busy:
            others = {client.get("svc://users/").text for _ in range(4)}
            assert others.isdisjoint({busy.read().decode()})
            assert len(others) == 1


def test_unix_socket_is_an_address_in_a_thread(short_path: Path) -> None:
    path = short_path / "s"
    with (
        serving(UnixStreamServer(str(path), UnixHandler)),
        portal_and_client(f"unix:{path}") as (_, _, client),
    ):
        assert client.get("svc://users/").text == str(path)


def test_errors_in_a_thread_are_those_of_httpx() -> None:
    with portal_and_client() as (portal, _, client):
        with pytest.raises(httpx.ConnectError, match="0 listed") as none:
            client.get("svc://users/")
        assert isinstance(none.value.__cause__, adsum.NoInstanceError)
        portal.close()
        with pytest.raises(httpx.ConnectError, match="closed"):
            client.get("svc://users/")


def test_portal_of_another_node_is_refused() -> None:
    services = adsum.Services(adsum.Node(siblings=False))
    with pytest.raises(adsum.ConfigurationError, match=r"portal=.*: must be one of the node"):
        SyncServiceTransport(adsum.Portal(adsum.Node(siblings=False)), services)
