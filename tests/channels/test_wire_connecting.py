"""What clients are told when they connect, and how connections end, against a real server."""

import base64

import httpx2
import pytest
from websockets.exceptions import InvalidStatus

from adsum.channels import Limits

from .captured_log import Log
from .leak_check import run
from .served_app import ServedApp, served_app, two_served_apps
from .ws_client import ws_client

pytestmark = pytest.mark.usefixtures("each_carrier")

PREFIX = "base64url.bearer.phx."


async def refused(made: ServedApp, query: str = "vsn=2.0.0", origin: str | None = None) -> int:
    """The HTTP status with which a connection is refused."""
    with pytest.raises(InvalidStatus) as caught:
        async with ws_client(made, query, origin=origin):
            pass
    return caught.value.response.status_code


def test_handshake_passes_params_headers_and_address_to_connect() -> None:
    async def main() -> None:
        async with (
            served_app() as made,
            ws_client(made, "vsn=2.0.0&token=t%20%26&user_id=4&empty="),
        ):
            (client,) = made.clients
            assert client.params == {"token": "t &", "user_id": "4", "empty": ""}
            assert client.headers["host"] == f"127.0.0.1:{made.port}"
            assert (client.transport, client.address) == ("websocket", "127.0.0.1")
            assert client.token is None

    run(main())


@pytest.mark.parametrize("version", ["3.0.0", "0.9.0", "2", "two", "", "2.0.0.0", "1.1.0"])
def test_handshake_of_an_unknown_version_is_refused_with_403(version: str, log: Log) -> None:
    async def main() -> None:
        async with served_app() as made:
            assert await refused(made, f"vsn={version}") == 403
            assert made.clients == []
            assert len(log.lines) == 1

    run(main())


def test_connect_refusal_is_answered_403() -> None:
    async def main() -> None:
        async with served_app() as made:
            assert await refused(made, "vsn=2.0.0&refused=1") == 403
            assert made.socket.stats()["refused_connections_total"] == 1
            assert made.socket.stats()["connections"] == 0

    run(main())


def test_connect_crash_is_answered_403_with_a_traceback(log: Log) -> None:
    async def main() -> None:
        async with served_app() as made:
            assert await refused(made, "vsn=2.0.0&crash=1") == 403
            assert len(log.lines) == 1
            assert "RuntimeError: connect crashes" in log.everything

    run(main())


def test_handshake_without_upgrade_is_answered_426() -> None:
    async def main() -> None:
        async with served_app() as made, httpx2.AsyncClient(verify=False, trust_env=False) as http:
            base = f"http://127.0.0.1:{made.port}"
            answer = await http.get(f"{base}/socket/websocket?vsn=2.0.0")
            assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
            assert (await http.get(f"{base}/socket/elsewhere")).status_code == 404

    run(main())


@pytest.mark.parametrize("token", ["secret", "a", "ab", "abc", "", "ä😀~~>>", '{"n":1}'])
@pytest.mark.parametrize("alphabet", ["url", "standard"])
def test_auth_token_of_the_subprotocol_reaches_connect(token: str, alphabet: str) -> None:
    encode = base64.urlsafe_b64encode if alphabet == "url" else base64.b64encode
    offered = PREFIX + encode(token.encode()).decode().rstrip("=")

    async def main() -> None:
        async with served_app() as made, ws_client(made, subprotocols=["phoenix", offered]) as ann:
            assert made.clients[0].token == token
            assert ann.connection.subprotocol == "phoenix"
            await ann.is_alive()

    run(main())


def test_handshake_selects_no_subprotocol_unless_phoenix_is_offered() -> None:
    async def main() -> None:
        async with served_app() as made:
            async with ws_client(made) as ann:
                assert ann.connection.subprotocol is None
            async with ws_client(made, subprotocols=["phoenix"]) as ann:
                assert ann.connection.subprotocol == "phoenix"
            async with ws_client(made, subprotocols=["mqtt"]) as ann:
                assert ann.connection.subprotocol is None
            async with ws_client(made, subprotocols=["mqtt", "phoenix"]) as ann:
                assert ann.connection.subprotocol == "phoenix"

    run(main())


def test_auth_token_that_is_not_base64_is_refused_with_403_and_not_logged(log: Log) -> None:
    async def main() -> None:
        async with served_app() as made:
            with pytest.raises(InvalidStatus) as caught:
                async with ws_client(made, subprotocols=["phoenix", PREFIX + "marker!"]):
                    pass
            assert caught.value.response.status_code == 403
            assert len(log.lines) == 1
            assert "marker" not in "".join(log.lines)

    run(main())


def test_origin_is_checked_against_the_host_by_default(log: Log) -> None:
    async def main() -> None:
        async with served_app() as made:
            for origin in f"http://127.0.0.1:{made.port}", "https://127.0.0.1":
                async with ws_client(made, origin=origin) as ann:
                    await ann.is_alive()
            assert log.lines == []
            assert await refused(made, origin="https://evil.example") == 403
            (line,) = log.lines
            assert "origins=['https://evil.example']" in line

    run(main())


def test_origin_list_is_configurable() -> None:
    async def main() -> None:
        async with served_app(origins=["https://example.com", "//*.example.org"]) as made:
            for origin in "https://example.com", "http://www.example.org":
                async with ws_client(made, origin=origin) as ann:
                    await ann.is_alive()
            for origin in f"http://127.0.0.1:{made.port}", "http://example.com", "null":
                assert await refused(made, origin=origin) == 403

    run(main())


def test_origin_check_can_be_disabled() -> None:
    async def main() -> None:
        async with served_app(origins=["*"]) as made:
            for origin in "https://evil.example", "null":
                async with ws_client(made, origin=origin) as ann:
                    await ann.is_alive()

    run(main())


def test_connections_beyond_the_limit_are_refused_with_503(log: Log) -> None:
    async def main() -> None:
        async with served_app(limits=Limits(connections=1)) as made:
            async with ws_client(made) as ann:
                assert await refused(made) == 503
                await ann.is_alive()
            assert len(log.lines) == 1
            async with ws_client(made) as bob:
                await bob.is_alive()

    run(main())


def test_disconnect_closes_every_connection_of_an_id_in_the_cluster(cluster_name: str) -> None:
    async def main() -> None:
        async with (
            two_served_apps(cluster_name) as (one, two),
            ws_client(one, "vsn=2.0.0&id=users:4") as first,
            ws_client(two, "vsn=2.0.0&id=users:4") as second,
            ws_client(two, "vsn=2.0.0&id=users:42") as other,
        ):
            await second.present("room:1", "ann")
            await one.socket.disconnect("users:4")
            assert await first.closed() == 1000
            assert await second.closed() == 1000
            await other.is_alive()
            assert await other.present("room:1", "eve") != {}
            assert two.keys("room:1") == ["eve"]

    run(main())


@pytest.mark.slow
def test_client_without_heartbeat_is_closed_after_the_timeout() -> None:
    async def main() -> None:
        async with (
            served_app(timeout=0.3) as made,
            ws_client(made) as silent,
            ws_client(made) as beating,
        ):
            await silent.present("room:1", "ann")
            ended = False
            while not ended:  # until the silent one is gone, however long that takes
                await beating.is_alive()
                ended = made.keys("room:1") == []
            assert await silent.closed() == 1001
            await beating.is_alive()

    run(main())


def test_node_stop_asks_clients_to_reconnect_with_1012() -> None:
    async def main() -> None:
        async with served_app() as made, ws_client(made) as ann:
            await ann.present("room:1", "ann")
            await made.node.stop()
            assert await ann.closed() == 1012
            assert await refused(made) == 503
            await made.node.start()
            async with ws_client(made) as again:
                assert list(await again.present("room:1", "ann")) == ["ann"]

    run(main())
