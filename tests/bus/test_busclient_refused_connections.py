"""First connections that fail, with real servers: reason and remedy, and no credentials."""

import asyncio
import builtins
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from adsum.bus.busmessages import KEY_BYTES, LIFE_BYTES, BusCodec, Cast
from adsum.bus.busreconnector import BusReconnector
from adsum.bus.carrierurl import make_client
from adsum.bus.limits import LEAST_PAYLOAD, MAX_EXCLUDED
from adsum.bus.natsclient import PRIVATE_NAMES
from adsum.errors import CarrierError, ConfigurationError
from adsum.transport.framing import FRAME_LIMIT, encode_payload
from tests.support.bus_servers import BusServer, NatsServer, RedisServer, running
from tests.support.ports import free_port
from tests.support.waiting import eventually, until

from .recorder import MakeServer, Recorder, connected, exchange, make

pytestmark = pytest.mark.processes

SECRET = "hunter2@#/,:%"
QUOTED = "hunter2%40%23%2F%2C%3A%25"


def refused(url: str, *subjects: str) -> str:
    """The text of the error of a first connection."""

    async def main() -> str:
        handler = Recorder()
        client = make(url, handler)
        with pytest.raises(CarrierError) as caught:
            await client.connect(subjects)
        assert not client.connected
        assert handler.changes == []
        await client.close()
        return str(caught.value)

    return asyncio.run(main())


def protected(make_server: MakeServer, **options: Any) -> tuple[BusServer, str]:
    """A server with a password of special characters, and its setting."""
    server = make_server(user="someone", password=SECRET, **options)
    return server, server.url.replace(SECRET, QUOTED)


@pytest.fixture(autouse=True)
def no_secret_in_logs(caplog: pytest.LogCaptureFixture) -> Any:
    """Fail each test whose log lines, of any level and library, have the password."""
    caplog.set_level(logging.DEBUG)
    yield
    for text in (SECRET, QUOTED, "hunter2"):
        assert text not in caplog.text


def test_password_with_special_characters_is_accepted(make_server: MakeServer) -> None:
    _, url = protected(make_server)

    async def main() -> None:
        async with connected(url, "a") as (client, _), connected(url, "b") as (_, receiver):
            await exchange(client, "b", receiver)
            assert "hunter2" not in client.server

    asyncio.run(main())


def test_wrong_password_names_masked_url_reason_and_remedy(make_server: MakeServer) -> None:
    _, url = protected(make_server)
    text = refused(url.replace("hunter2", "hunter3"), "a")
    assert "hunter3" not in text
    assert "someone" not in text
    assert "***@127.0.0.1" in text
    assert "refuses the credentials" in text
    assert "check the user, the password or the token" in text


def test_missing_password_names_the_credentials(make_server: MakeServer) -> None:
    server, _ = protected(make_server)
    text = refused(f"{server.scheme}://127.0.0.1:{server.port}", "a")
    assert "refuses the credentials" in text


def test_denied_subject_names_the_permission(make_server: MakeServer) -> None:
    _, url = protected(make_server, denied="denied.a")
    text = refused(url, "allowed.a", "denied.a")
    assert "allow this user to subscribe" in text
    assert "hunter2" not in text


def test_user_that_may_not_publish_is_refused(make_server: MakeServer) -> None:
    _, url = protected(make_server, mute=True)
    text = refused(url, "allowed.a")
    assert "publish" in text.partition(";")[0]
    assert text.endswith("allow this user to subscribe and publish on the subjects of the cluster")
    assert "hunter2" not in text


def test_check_of_the_permission_to_publish_reaches_nobody(server: BusServer) -> None:
    async def main() -> None:
        async with (
            connected(server.url, "all", "a") as (client, events),
            connected(server.url, "all", "b") as (other, received),
        ):
            server.restart()
            await exchange(client, "b", received)
            await exchange(other, "a", events)
            assert {*events.received, *received.received} == {b"ping"}

    asyncio.run(main())


def test_server_without_room_for_one_more_connection_names_its_bound(
    make_server: MakeServer, engine: str
) -> None:
    server = make_server(connections=1 if engine == "nats" else 2)

    async def accepted() -> BusReconnector | None:
        """A connected client, once the server has dropped the connection of `make_server`."""
        client = make(server.url, Recorder())
        try:
            await client.connect(["a"])
        except CarrierError:
            await client.close()
            return None
        return client

    async def main() -> str:
        first = await until(accepted, "the server has room for one client")
        other = make(server.url, Recorder())
        try:
            with pytest.raises(CarrierError) as caught:
                await other.connect(["b"])
        finally:
            await first.close()
            await other.close()
        return str(caught.value)

    text = asyncio.run(main())
    assert f"carrier='{server.url}': the server has closed the connection (" in text
    assert ("max_connections" if engine == "nats" else "maxclients") in text


def test_later_denied_subject_is_logged_and_ends_nothing(
    make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    _, url = protected(make_server, denied="denied.a")

    async def main() -> None:
        async with (
            connected(url, "allowed.a") as (client, events),
            connected(url, "allowed.b") as (other, received),
        ):
            client.subscribe("denied.a")
            await until(lambda: "refuses a message or a subscription" in caplog.text, "the line")
            await exchange(client, "allowed.b", received)
            await exchange(other, "allowed.a", events)
            assert events.changes == ["connected"]

    asyncio.run(main())


def test_refused_return_is_logged_once_and_repeated_until_it_is_accepted(
    make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server, url = protected(make_server)

    def warnings() -> list[str]:
        return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]

    def attempts() -> int:
        return sum("refuses the credentials" in r.getMessage() for r in caplog.records)

    async def main() -> None:
        async with connected(url, "allowed.a") as (client, events):
            password, server.password = server.password, "changed"
            server.restart()
            await until(lambda: attempts() >= 3, "three attempts")
            server.password = password
            server.restart()
            await until(lambda: client.connected, "the reconnect")
            assert len(events.losses) == 1

    asyncio.run(main())
    [line] = warnings()
    assert "refuses the credentials" in line
    assert "check the user, the password or the token" in line


def test_unreachable_server_names_each_url_and_the_reason(engine: str) -> None:
    one, two = free_port(), free_port()
    text = refused(f"{engine}://127.0.0.1:{one},{engine}://u:hunter2@127.0.0.1:{two}")
    assert f"127.0.0.1:{one}" in text
    assert f"***@127.0.0.1:{two}" in text
    assert text.count("check that the server runs") == 2


def test_unknown_host_names_the_url(engine: str) -> None:
    text = refused(f"{engine}://someone:hunter2@no-such-host.invalid")
    assert f"carrier='{engine}://***@no-such-host.invalid'" in text
    assert "check that the server runs" in text


def test_server_of_another_protocol_is_refused(make_server: MakeServer, engine: str) -> None:
    server = make_server()
    other = "redis" if engine == "nats" else "nats"
    assert "carrier='" in refused(f"{other}://127.0.0.1:{server.port}")


def test_silent_server_is_refused_after_a_bounded_time(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsum.bus.busreconnector.CONNECT_TIMEOUT", 0.3)

    async def main() -> str:
        accepted = list[asyncio.StreamWriter]()
        silent = await asyncio.start_server(lambda _, w: accepted.append(w), "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        client = make(f"{engine}://127.0.0.1:{port}", Recorder())
        with pytest.raises(CarrierError) as caught:
            await client.connect([])
        for writer in accepted:
            writer.transport.abort()
        silent.close()
        return str(caught.value)

    assert "no answer within 0.3 s" in asyncio.run(main())


def test_reachable_server_is_found_behind_unreachable_ones(server: BusServer) -> None:
    scheme = server.scheme
    url = f"{scheme}://127.0.0.1:{free_port()},{server.url},{scheme}://no-such-host.invalid"

    async def main() -> None:
        async with connected(url, "a") as (client, _):
            assert client.server == server.url

    asyncio.run(main())


def test_credentials_are_in_no_reason_of_a_loss(make_server: MakeServer) -> None:
    server, url = protected(make_server)

    async def main() -> None:
        async with connected(url, "a") as (client, events):
            server.restart()
            await until(lambda: len(events.changes) == 3, "the reconnect")
            server.kill()
            server.password = "another"
            server.start()
            await until(lambda: len(events.losses) == 2, "the loss")
            await asyncio.sleep(0.3)  # attempts with the wrong password
            assert not client.connected
            assert "hunter2" not in str(events.changes)

    asyncio.run(main())


def test_tls_connects_and_verifies_the_server(
    make_server: MakeServer, address_certificates: Path
) -> None:
    server = make_server(tls=address_certificates)
    option = "ca" if isinstance(server, NatsServer) else "ssl_ca_certs"
    url = f"{server.url}?{option}={address_certificates / 'authority.pem'}"

    async def main() -> None:
        async with connected(url, "a") as (client, _), connected(url, "b") as (_, receiver):
            await exchange(client, "b", receiver)
            server.restart()
            await exchange(client, "b", receiver)

    asyncio.run(main())
    assert f"name the file of its authority as ?{option}=..." in refused(server.url)


def test_url_without_tls_to_a_server_with_tls_names_the_remedy(
    make_server: MakeServer, address_certificates: Path
) -> None:
    server = make_server(tls=address_certificates)
    text = refused(f"{server.scheme}://127.0.0.1:{server.port}")
    # A client of NATS begins TLS if the server demands it, and then checks the certificate.
    remedy = "?ca=..." if isinstance(server, NatsServer) else "write rediss://"
    assert remedy in text


def test_tls_url_to_a_server_without_tls_names_the_other_scheme(
    server: BusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adsum.bus.busreconnector.CONNECT_TIMEOUT", 1.0)  # of Redis, which waits
    text = refused(f"{server.tls_scheme}://127.0.0.1:{server.port}")
    assert f"write {server.scheme}://" in text


def test_tls_url_sends_no_password_to_a_server_without_tls(make_server: MakeServer) -> None:
    server, url = protected(make_server)
    scheme = server.tls_scheme + url[len(server.scheme) :]
    text = refused(scheme, "a")
    # Redis waits for the rest of a command that never comes.
    assert "does not offer TLS" in text or "no answer within" in text
    assert "hunter2" not in text


def test_redis_in_cluster_mode_is_refused(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, cluster_mode=True)
    with running(server):
        assert "cluster mode" in refused(server.url)


def test_redis_that_loads_its_data_carries_messages(tmp_path: Path) -> None:
    first = RedisServer(tmp_path)
    with running(first), socket.create_connection(("127.0.0.1", first.port)) as raw:
        # It serves its clients after each KiB that it has loaded.
        sets = [f"SET {key} {os.urandom(500).hex()}\r\n" for key in range(200)]
        raw.sendall("".join([*sets, "SAVE\r\n"]).encode())
        eventually(lambda: "DB saved on disk" in first.log, "the file")
    loading = RedisServer(tmp_path, load_delay=10_000)

    async def main() -> None:
        async with (
            connected(loading.url, "a") as (client, _),
            connected(loading.url, "b") as (_, receiver),
        ):
            await exchange(client, "b", receiver)
            assert "DB loaded from disk" not in loading.log

    with running(loading):
        asyncio.run(main())


def test_replicas_alone_are_refused(tmp_path: Path) -> None:
    master = RedisServer(tmp_path)
    replicas = [RedisServer(tmp_path, replica_of=master) for _ in range(2)]
    with running(master, *replicas):
        text = refused(",".join(replica.url for replica in replicas))
    assert text.count("not the master") == 2


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [
        ("nats://a", "nats-py", "nats"),
        ("tls://a", "nats-py", "nats"),
        ("redis://a", "redis", "redis"),
    ],
)
def test_missing_extra_names_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, url: str, package: str, extra: str
) -> None:
    original = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("adsum.bus.") and name.endswith("client") and "busclient" not in name:
            raise ModuleNotFoundError(f"No module named {extra!r}", name=extra)
        return original(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigurationError) as caught:
        make_client(url, Recorder(), "node")
    text = f"carrier='{url}': needs {package}; run: pip install 'adsum[{extra}]'"
    assert str(caught.value) == text


def test_wrong_options_of_redis_are_refused_when_the_client_is_made() -> None:
    for option in (
        "db=x",
        "protocol=3",
        "no_such_option=hunter2",
        "retry=3",
        "decode_responses=true",
    ):
        with pytest.raises(ConfigurationError) as caught:
            make_client(f"redis://someone:hunter2@a?{option}", Recorder(), "node")
        assert "carrier='redis://***@a?" in str(caught.value)
        assert "hunter2" not in str(caught.value)


def test_missing_file_of_a_certificate_is_refused_when_the_client_is_made() -> None:
    with pytest.raises(ConfigurationError, match="readable files of certificates"):
        make_client("tls://someone:hunter2@a?ca=/no/such/file", Recorder(), "node")


@pytest.mark.parametrize("option", ["creds", "nkey"])
def test_missing_file_of_credentials_is_refused_when_the_client_is_made(
    monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    pytest.importorskip("nkeys")
    with pytest.raises(ConfigurationError, match=f"readable file of credentials as {option}"):
        make_client(f"nats://a?{option}=/no/such/file", Recorder(), "node")
    monkeypatch.setitem(sys.modules, "nkeys", None)
    with pytest.raises(ConfigurationError, match=r"need nkeys; run: pip install 'adsum\[nats\]'"):
        make_client(f"nats://a?{option}=/no/such/file", Recorder(), "node")


def test_seed_of_a_file_is_accepted(tmp_path: Path) -> None:
    nkeys = pytest.importorskip("nkeys")
    seed = bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))
    key = nkeys.from_seed(bytearray(seed)).public_key
    (tmp_path / "user.nk").write_bytes(seed)
    server = NatsServer(tmp_path, nkey=key.decode())
    url = f"{server.url}?nkey={tmp_path / 'user.nk'}"

    async def main() -> None:
        async with connected(url, "a") as (client, _), connected(url, "b") as (_, receiver):
            await exchange(client, "b", receiver)

    with running(server):
        assert "refuses the credentials" in refused(server.url)
        asyncio.run(main())


def test_subscription_beyond_the_bound_of_the_server_costs_no_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = NatsServer(tmp_path, subscriptions=4)  # one is for refusals

    async def main() -> None:
        async with (
            connected(server.url, "a") as (client, events),
            connected(server.url) as (one, _),
        ):
            for subject in "bcdefg":
                client.subscribe(subject)
            await until(lambda: "maximum subscriptions exceeded" in caplog.text)
            await exchange(one, "c", events)
            assert events.losses == []
            server.restart()
            await until(lambda: len(events.changes) == 3, "the reconnect")
            await exchange(one, "c", events)
            assert len(events.losses) == 1

    with running(server):
        asyncio.run(main())


def test_server_that_refuses_the_longest_messages_is_refused(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, payload=LEAST_PAYLOAD - 1)
    with running(server):
        text = refused(server.url, "a")
    assert "its max_payload is 327679 bytes; set max_payload of the server to 327680" in text


def test_longest_message_of_a_thousand_links_is_accepted() -> None:
    keys = [index.to_bytes(KEY_BYTES, "big") for index in range(MAX_EXCLUDED)]
    needs = tuple((key, 1) for key in keys)
    cast = Cast(1, needs, tuple(keys), encode_payload(os.urandom(FRAME_LIMIT)))
    assert len(BusCodec(b"secret", "shop").encode(bytes(LIFE_BYTES), cast)) <= LEAST_PAYLOAD


def test_version_of_nats_py_without_an_overridden_method_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in PRIVATE_NAMES:
        with monkeypatch.context() as patched:
            patched.delattr(f"nats.aio.client.Client.{name}")
            with pytest.raises(ConfigurationError, match=name):
                make_client("nats://a", Recorder(), "node")
