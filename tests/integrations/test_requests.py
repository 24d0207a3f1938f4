"""Requests to a service: addresses, repeats, uses, errors; the same for each client."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import adsum
from adsum.integrations.aiohttp import ServiceConnector
from tests.support.waiting import until

from .clients import AiohttpClient, Answer, Client, HttpxClient
from .raw_server import RawServer
from .registered import registered


def test_request_goes_to_an_instance_with_path_query_and_its_host(
    client_type: type[Client],
) -> None:
    async def work() -> None:
        async with registered("a") as (services, [a]), client_type(services) as client:
            answer = await client.fetch("/x%2Fy/z?q=1%262")
            assert answer == Answer(200, "a /x%2Fy/z?q=1%262")
            assert a.received[0].host == a.address.removeprefix("http://")
            await client.fetch("/", headers={"Host": "example.org"})
            assert a.received[1].host == "example.org"

    asyncio.run(work())


def test_path_of_an_address_precedes_that_of_the_request(client_type: type[Client]) -> None:
    async def work() -> None:
        async with registered() as (services, _), RawServer("a") as a:
            services.register("users", f"{a.address}/v1/")
            async with client_type(services) as client:
                assert (await client.fetch("//x?y")).text == "a /v1//x?y"

    asyncio.run(work())


@pytest.mark.parametrize(
    ("location", "path"), [("/b?x=%2F", "/b?x=%2F"), ("b", "/a/b"), ("?y", "/a/?y"), ("../c", "/c")]
)
def test_relative_redirect_stays_in_the_service(location: str, path: str) -> None:
    async def work() -> None:
        async with registered("a", "b") as (services, [a, b]), HttpxClient(services) as client:
            a.location = location
            assert (await client.fetch("/a/", follow=True)).text == f"b {path}"
            assert len(b.received) == 1

    asyncio.run(work())


@pytest.mark.parametrize(
    ("location", "path"), [("b", "/v1/b"), ("/v1/b", "/v1/b"), ("/v1", "/v1"), ("/other", "/other")]
)
def test_relative_redirect_of_an_address_with_a_path(location: str, path: str) -> None:
    async def work() -> None:
        async with registered() as (services, _), RawServer("a") as a:
            services.register("users", f"{a.address}/v1")
            async with HttpxClient(services) as client:
                a.location = location
                assert (await client.fetch("/x", follow=True)).text == f"a {path}"

    asyncio.run(work())


@pytest.mark.parametrize("location", ["http://[", "//[/", "/\x01"])
def test_broken_redirect_is_an_error_of_the_client(location: str) -> None:
    async def work() -> None:
        async with registered("a") as (services, [a]), HttpxClient(services) as client:
            a.location = location
            with pytest.raises(client.errors):
                await client.fetch(follow=True)
            assert (await client.fetch()).status == 200

    asyncio.run(work())


def test_aiohttp_follows_no_relative_redirect() -> None:
    """Its URLs join relative ones for known schemes alone; the page names this limit."""

    async def work() -> None:
        async with registered("a") as (services, [a]), AiohttpClient(services) as client:
            a.location = "/b"
            with pytest.raises(aiohttp.InvalidUrlRedirectClientError):
                await client.fetch(follow=True)
            assert (await client.fetch()).status == 200

    asyncio.run(work())


def test_address_without_a_scheme_is_http(client_type: type[Client]) -> None:
    async def work() -> None:
        async with registered() as (services, _), RawServer("a") as a:
            services.register("users", a.address.removeprefix("http://"))
            async with client_type(services) as client:
                assert (await client.fetch()).text == "a /"

    asyncio.run(work())


def test_unix_socket_is_an_address(client_type: type[Client], short_path: Path) -> None:
    async def work() -> None:
        async with registered() as (services, _), RawServer("a", short_path / "s") as a:
            services.register("users", a.address)
            async with client_type(services) as client:
                for _ in range(3):
                    assert (await client.fetch("/x")).text == "a /x"
                assert a.received[0].host == "localhost"

    asyncio.run(work())


def test_requests_are_spread_over_the_instances(client_type: type[Client]) -> None:
    async def work() -> None:
        async with registered("a", "b", "c") as (services, servers):
            async with client_type(services) as client:
                for _ in range(9):
                    await client.fetch()
            assert [len(server.received) for server in servers] == [3, 3, 3]

    asyncio.run(work())


def test_tag_and_strategy_hold_for_all_requests(client_type: type[Client]) -> None:
    async def work() -> None:
        async with registered("a") as (services, [a]), RawServer("b") as b:
            services.register("users", b.address, tags=["eu"])
            async with client_type(services, tag="eu", pick="round_robin") as client:
                for _ in range(4):
                    await client.fetch()
            assert (len(a.received), len(b.received)) == (0, 4)

    asyncio.run(work())


def test_open_response_counts_as_a_use_until_it_is_closed(client_type: type[Client]) -> None:
    async def work() -> None:
        async with registered("a", "b") as (services, servers), client_type(services) as client:
            for server in servers:
                server.finished.clear()
            response = await client.open()
            busy, idle = sorted(servers, key=lambda server: -len(server.received))
            idle.finished.set()
            for _ in range(4):
                await client.fetch()
            assert (len(busy.received), len(idle.received)) == (1, 4)
            await client.close_response(response)
            busy.finished.set()
            for _ in range(4):
                await client.fetch()
            assert (len(busy.received), len(idle.received)) == (3, 6)

    asyncio.run(work())


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_refused_connection_is_repeated_on_another_instance(
    client_type: type[Client], method: str
) -> None:
    async def work() -> None:
        async with registered("a", "b", "c") as (services, [a, b, c]):
            await a.close()
            await b.close()
            async with client_type(services) as client:
                for _ in range(6):
                    answer = await client.fetch("/x", method, data=b"body")
                    assert answer == Answer(200, "c /x")
            assert [request.body for request in c.received] == [b"body"] * 6

    asyncio.run(work())


def test_body_that_can_be_read_once_survives_a_refused_connection(
    client_type: type[Client],
) -> None:
    async def body() -> Any:
        yield b"once"

    async def work() -> None:
        async with registered("a", "b") as (services, [a, b]):
            await a.close()
            async with client_type(services) as client:
                for _ in range(2):
                    assert (await client.fetch("/", "POST", data=body())).status == 200
            assert all(b"once" in request.body for request in b.received)

    asyncio.run(work())


def test_body_that_can_be_read_once_is_sent_once(client_type: type[Client]) -> None:
    async def body() -> Any:
        yield b"once"

    async def work() -> None:
        async with registered("a", "b", rest=0) as (services, servers):
            for server in servers:
                server.drops = True
            async with client_type(services) as client:
                with pytest.raises(client.errors):
                    await client.fetch("/", "PUT", data=body())
            assert sum(len(server.received) for server in servers) == 1

    asyncio.run(work())


def test_idempotent_request_is_repeated_after_it_was_sent(client_type: type[Client]) -> None:
    async def work() -> None:
        async with registered("a", "b", rest=0) as (services, [a, b]):
            a.drops = True
            async with client_type(services) as client:
                for method in ("GET", "PUT", "DELETE", "OPTIONS"):
                    assert (await client.fetch("/x", method, data=b"1")).text == "b /x"
            assert a.received
            assert len(b.received) == 4

    asyncio.run(work())


def test_response_that_has_begun_is_not_repeated(client_type: type[Client]) -> None:
    async def work() -> None:
        async with registered("a", "b", rest=60) as (services, [a, b]):
            a.breaks = b.breaks = True
            async with client_type(services) as client:
                with pytest.raises(client.errors):
                    await client.fetch()
                [resting] = [each for each in (a, b) if each.received]
                assert len(resting.received) == 1
                a.breaks = b.breaks = False
                used = {(await client.fetch()).text for _ in range(4)}
                assert used == ({"a /", "b /"} - {f"{resting.name} /"})

    asyncio.run(work())


def test_post_is_never_repeated_after_it_was_sent(client_type: type[Client]) -> None:
    async def work() -> None:
        async with registered("a", "b", rest=0) as (services, servers):
            for server in servers:
                server.drops = True
            async with client_type(services) as client:
                for number in range(10):
                    with pytest.raises(client.errors):
                        await client.fetch(f"/{number}", "POST", data=b"1")
            paths = [request.path for server in servers for request in server.received]
            assert sorted(paths) == [f"/{number}" for number in range(10)]

    asyncio.run(work())


def test_failed_instance_gets_no_requests_for_a_while(client_type: type[Client]) -> None:
    async def work() -> None:
        async with registered("a", "b", rest=60) as (services, [a, b]):
            a.drops = True
            async with client_type(services) as client:
                for _ in range(6):
                    with suppress(client.errors):
                        await client.fetch("/", "POST", data=b"1")
            assert (len(a.received), len(b.received)) == (1, 5)

    asyncio.run(work())


def test_cancelled_request_is_no_longer_a_use_and_no_failure(client_type: type[Client]) -> None:
    async def work() -> None:
        async with registered("a", "b") as (services, servers), client_type(services) as client:
            for server in servers:
                server.finished.clear()
            task = asyncio.create_task(client.fetch())
            await until(lambda: any(server.received for server in servers))
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            for server in servers:
                server.finished.set()
                server.received.clear()
            for _ in range(6):
                await client.fetch()
            assert [len(server.received) for server in servers] == [3, 3]

    asyncio.run(work())


def test_status_of_an_error_is_an_answer(client_type: type[Client]) -> None:
    async def work() -> None:
        async with registered("a", "b") as (services, [a, b]):
            a.status = b.status = 503
            async with client_type(services) as client:
                assert (await client.fetch()).status == 503
            assert len(a.received) + len(b.received) == 1

    asyncio.run(work())


@pytest.mark.parametrize(
    "address",
    [
        *(
            "amqp://10.0.0.5:5672",
            "http://10-0-0-5",
            "http://999.0.0.1",
            "http://ä\u2028",
            "http://a\0",
        ),
        *(
            "http://127.0.0.1:1/ü",
            "http://a..b",
            "http://" + "a" * 64,
            "http://[fe80::1%25lo]",
            "unix:/\0",
        ),
    ],
)
def test_address_that_is_none_of_an_http_server_is_skipped(
    client_type: type[Client], address: str
) -> None:
    async def work() -> None:
        async with registered("a") as (services, _):
            services.register("users", address)
            async with client_type(services) as client:
                for _ in range(2):
                    assert (await client.fetch()).status == 200

    asyncio.run(work())


def test_cancelled_request_that_was_not_answered_does_not_end_a_rest(
    client_type: type[Client],
) -> None:
    async def work() -> None:
        sent = asyncio.Event()

        async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            sent.set()
            await reader.read()
            writer.close()

        server = await asyncio.start_server(be_silent, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        async with server, registered(rest=60) as (services, _), client_type(services) as client:
            silent = services.register("users", f"{host}:{port}").instance
            assert silent is not None
            task = asyncio.create_task(client.fetch())
            await sent.wait()
            services.report_failure(silent)
            services.register("users", "other:80")
            task.cancel()
            await asyncio.wait([task])
            assert {services.resolve("users").address for _ in range(4)} == {"other:80"}

    asyncio.run(work())


def test_wait_for_a_free_connection_is_no_failure_of_an_instance() -> None:
    async def work() -> None:
        async with registered("a", "b", rest=60) as (services, [a, b]):
            a.finished.clear()
            connector = ServiceConnector(services, limit=1, pick="round_robin")
            timeout = aiohttp.ClientTimeout(connect=0.05)
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.get("svc://users/"),
            ):
                with pytest.raises(aiohttp.ConnectionTimeoutError):
                    await session.get("svc://users/")
            assert not b.received
            picked = {services.resolve("users", pick="round_robin").address for _ in range(4)}
            assert picked == {a.address, b.address}

    asyncio.run(work())


def test_request_without_an_instance_raises_an_error_of_the_client_at_once(
    client_type: type[Client],
) -> None:
    async def work() -> None:
        async with registered() as (services, _), client_type(services) as client:
            with pytest.raises(client.connect_error, match=r"'mail' accepts.*: 0 listed") as none:
                await client.fetch(url="svc://mail")
            assert isinstance(none.value.__cause__, adsum.NoInstanceError)
        async with client_type(services) as client:
            with pytest.raises(client.connect_error, match="has stopped") as stopped:
                await client.fetch()
            assert isinstance(stopped.value.__cause__, adsum.NodeNotRunningError)

    asyncio.run(work())


def test_host_that_cannot_be_a_service_raises(client_type: type[Client]) -> None:
    async def work() -> None:
        async with registered() as (services, _), client_type(services) as client:
            with pytest.raises(adsum.ConfigurationError, match="name='-x': must be"):
                await client.fetch(url="svc://-x")
            with pytest.raises((client.errors, ValueError), match=r"without a port|has no port"):
                await client.fetch(url="svc://users:80")

    asyncio.run(work())


def test_answer_is_delivered_although_the_node_has_stopped(client_type: type[Client]) -> None:
    async def work() -> None:
        async with registered("a") as (services, [a]), client_type(services) as client:
            a.finished.clear()
            response = await client.open()
            await services.node.stop()
            a.finished.set()
            await client.close_response(response)

    asyncio.run(work())


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"attempts": 0}, "attempts=0: must be"),
        ({"attempts": 101}, "attempts=101: must be"),
        ({"pick": "best"}, "pick='best': must be"),
        ({"tag": ""}, "tag"),
    ],
)
def test_bad_argument_raises_at_once(
    client_type: type[Client], settings: dict[str, Any], text: str
) -> None:
    async def work() -> None:
        services = adsum.Services(adsum.Node(siblings=False))
        with pytest.raises(ValueError, match=text):
            client_type(services, **settings)

    asyncio.run(work())
