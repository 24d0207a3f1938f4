"""What is particular to sockets: paths, ports, files, TLS, other event loops, and cleaning up."""

import asyncio
import errno
import gc
import logging
import os
import socket
import ssl
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from adsum.errors import (
    ConfigurationError,
    DialError,
    DialRefusedError,
    HandshakeError,
    ListenError,
)
from adsum.transport import sockets
from adsum.transport.address import TcpAddress, UnixAddress
from adsum.transport.contract import NodeIdentity
from adsum.transport.limits import TransportLimits
from adsum.transport.listeners import TcpPlace, open_all, open_unix
from adsum.transport.options import TransportOptions
from adsum.transport.sockets import SocketTransport
from adsum.transport.tls import TLS, require_security
from tests.support.certificates import make_authority, sign
from tests.support.ports import free_port_range
from tests.support.transports import Recorder, World, bound_port, in_loop
from tests.support.waiting import until


@pytest.fixture
def tcp(short_path: Path) -> World:
    return World("tcp", short_path, None)


@pytest.fixture
def unix(short_path: Path) -> World:
    return World("unix", short_path, None)


@in_loop
async def test_listen_takes_the_first_free_port_of_a_range(tcp: World) -> None:
    first, last = free_port_range(3)
    bound = [await tcp.transport(name).listen(f"127.0.0.1:{first}-{last}") for name in "abc"]

    assert bound == [f"127.0.0.1:{port}" for port in range(first, last + 1)]
    with pytest.raises(ListenError, match=rf"ports {first} to {last} are all taken; set a range"):
        await tcp.transport("d").listen(f"127.0.0.1:{first}-{last}")


@in_loop
async def test_listen_error_of_a_taken_port_has_advice(tcp: World) -> None:
    address = await tcp.listening("first", Recorder())
    port = bound_port(address)

    with pytest.raises(ListenError, match=f"port {port} is taken; set a range of ports"):
        await tcp.transport("second").listen(address)


@pytest.mark.parametrize(
    ("address", "why"),
    [("192.0.2.1:0", "not an address of this machine"), ("nobody.invalid:0", "nobody.invalid:0: ")],
)
@in_loop
async def test_host_that_is_not_here_cannot_be_listened_on(
    tcp: World, address: str, why: str
) -> None:
    with pytest.raises(ListenError, match=why):
        await tcp.transport("node").listen(address)


@in_loop
async def test_address_that_cannot_be_read_is_a_configuration_error(tcp: World) -> None:
    with pytest.raises(ConfigurationError):
        await tcp.transport("node").listen("localhost")
    for address in ("localhost", "localhost:0", "localhost:1-2"):
        with pytest.raises(ConfigurationError):
            await tcp.transport("node").dial(address)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "[::]", "localhost"])
@in_loop
async def test_listening_on_every_interface_is_reachable_on_loopback(tcp: World, host: str) -> None:
    if host == "[::]" and not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    bound = await tcp.transport("acceptor").listen(f"{host}:0")

    await tcp.transport("dialler").dial(f"localhost:{bound_port(bound)}")
    await tcp.transport("other dialler").dial(f"127.0.0.1:{bound_port(bound)}")


needs_ipv6 = pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")


@needs_ipv6
@pytest.mark.parametrize(
    "hosts", [("0.0.0.0", "[::]"), ("[::]", "0.0.0.0"), ("127.0.0.1", "[::]"), ("[::]", "")]
)
@pytest.mark.parametrize("any_port", [True, False])
@in_loop
async def test_both_address_families_listen_on_one_port(
    tcp: World, hosts: tuple[str, str], any_port: bool
) -> None:
    port = 0 if any_port else free_port_range(1)[0]
    acceptor = Recorder()
    bound = await on_sockets(tcp, "acceptor", acceptor).listen_all(
        [f"{host}:{port}" for host in hosts]
    )

    port = bound_port(bound[0])
    assert bound == [f"{host or '0.0.0.0'}:{port}" for host in hosts]
    for number, host in enumerate(("127.0.0.1", "[::1]")):
        await tcp.transport(f"dialler {number}").dial(f"{host}:{port}")
    await until(lambda: len(acceptor.opened) == 2)


@needs_ipv6
@in_loop
async def test_ranges_of_both_families_get_the_first_port_that_is_free_for_both(
    tcp: World,
) -> None:
    first, last = free_port_range(4)
    wanted = [f"[::]:{first}-{last}", f"0.0.0.0:{first}-{last}"]
    await tcp.transport("in the way").listen(f"[::1]:{first + 1}")

    bound = [await on_sockets(tcp, name).listen_all(wanted) for name in "abc"]

    ports = (first, first + 2, first + 3)
    assert bound == [[f"[::]:{port}", f"0.0.0.0:{port}"] for port in ports]
    with pytest.raises(ListenError, match=rf"ports {first} to {last} are all taken"):
        await on_sockets(tcp, "d").listen_all(wanted)


@needs_ipv6
@in_loop
async def test_overlapping_ranges_of_both_families_do_not_block_each_other(tcp: World) -> None:
    first, last = free_port_range(2)

    bound = await on_sockets(tcp, "a").listen_all([f"[::]:{first}", f"0.0.0.0:{first}-{last}"])

    assert bound == [f"[::]:{first}", f"0.0.0.0:{first}"]


@in_loop
async def test_addresses_are_listened_on_all_or_none(tcp: World, short_path: Path) -> None:
    taken = await tcp.listening("taken", Recorder())
    port = free_port_range(1)[0]
    path = short_path / "node.sock"
    wanted = [f"127.0.0.1:{port}", f"unix:{path}", taken]

    with pytest.raises(ListenError, match=taken):
        await on_sockets(tcp, "a").listen_all(wanted)

    assert not path.exists()
    bound = await on_sockets(tcp, "b").listen_all(wanted[:2])
    assert bound == wanted[:2]


@in_loop
async def test_every_address_of_a_name_is_tried(
    tcp: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = await tcp.listening("acceptor", Recorder())
    port = bound_port(address)
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))
        for host in ("127.0.0.2", "127.0.0.1")
    ]

    async def records(*args: object, **kwargs: object) -> object:
        return found

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", records)
    await tcp.transport("dialler").dial(f"cluster.example.org:{port}")
    found.pop()
    with pytest.raises(DialRefusedError):
        await tcp.transport("late").dial(f"cluster.example.org:{port}")


@in_loop
async def test_dial_timeout_does_not_mark_the_host_gone(
    tcp: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*args: object) -> socket.socket:
        await asyncio.Event().wait()
        raise AssertionError

    async def record(*args: object, **kwargs: object) -> object:
        """Resolve at once: a thread that resolves on a busy machine may exceed the timeout."""
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 9))]

    monkeypatch.setattr(sockets, "_connect", never)
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", record)
    dial = tcp.transport("dialler", limits=TransportLimits(connect_timeout=0.02)).dial(
        "127.0.0.1:9"
    )

    with pytest.raises(DialError, match=r"no answer within 0\.02 s") as caught:
        await dial
    assert not isinstance(caught.value, DialRefusedError)


@in_loop
async def test_name_is_gone_only_if_all_its_addresses_refuse(
    tcp: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [
        OSError(errno.EHOSTUNREACH, "No route to host"),
        ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
    ]

    async def fail(*args: object) -> socket.socket:
        raise failures.pop()

    async def records(*args: object, **kwargs: object) -> object:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 1))] * 2

    monkeypatch.setattr(sockets, "_connect", fail)
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", records)

    with pytest.raises(DialError, match="Connection refused; No route to host") as caught:
        await tcp.transport("dialler").dial("cluster.example.org:1")
    assert not isinstance(caught.value, DialRefusedError)


@contextmanager
def busy_listener(path: str) -> Iterator[None]:
    """A Unix socket whose backlog is full, so that it accepts no more connections."""
    with ExitStack() as stack:
        busy = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        busy.bind(path)
        busy.listen(0)
        while True:
            caller = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            caller.setblocking(False)
            if caller.connect_ex(path) == errno.EAGAIN:
                break
        yield


@in_loop
async def test_busy_unix_listener_is_not_marked_gone(unix: World, short_path: Path) -> None:
    path = str(short_path / "busy")
    with busy_listener(path), pytest.raises(DialError, match="too busy") as caught:
        await unix.transport("dialler").dial(f"unix:{path}")
    assert not isinstance(caught.value, DialRefusedError)


@in_loop
async def test_path_of_a_busy_listener_is_not_taken_over(unix: World, short_path: Path) -> None:
    path = short_path / "busy"
    with busy_listener(str(path)):
        before = path.lstat().st_ino
        with pytest.raises(ListenError, match="a running process listens there"):
            await unix.transport("node").listen(f"unix:{path}")
        assert path.lstat().st_ino == before


@in_loop
async def test_name_that_does_not_resolve_fails_the_dial(
    tcp: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unknown(*args: object, **kwargs: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def never(*args: object, **kwargs: object) -> object:
        return await asyncio.Event().wait()

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "getaddrinfo", unknown)
    with pytest.raises(DialError, match="Name or service not known") as caught:
        await tcp.transport("dialler").dial("cluster.example.org:1")
    assert not isinstance(caught.value, DialRefusedError)
    monkeypatch.setattr(loop, "getaddrinfo", never)
    hasty = tcp.transport("hasty", limits=TransportLimits(connect_timeout=0.02))
    with pytest.raises(DialError, match=r"its name was not resolved within 0\.02 s"):
        await hasty.dial("cluster.example.org:1")


@in_loop
async def test_unix_socket_appears_only_when_it_listens_and_for_this_user_alone(
    unix: World, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = short_path / "node.sock"
    rename = os.rename

    def checked(source: str, target: str) -> None:
        assert not path.exists()
        assert stat.S_IMODE(os.lstat(source).st_mode) == 0o600
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(source)
        rename(source, target)

    monkeypatch.setattr(os, "rename", checked)
    await unix.transport("node").listen(f"unix:{path}")

    assert os.listdir(short_path) == ["node.sock"]


@in_loop
async def test_path_of_a_dead_process_is_taken_over(unix: World, short_path: Path) -> None:
    path = short_path / "node.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    with pytest.raises(DialRefusedError):
        await unix.transport("early").dial(f"unix:{path}")

    await unix.transport("node").listen(f"unix:{path}")

    await unix.transport("dialler").dial(f"unix:{path}")


@in_loop
async def test_file_in_the_way_is_left_alone(unix: World, short_path: Path) -> None:
    path = short_path / "precious"
    path.write_text("data")

    with pytest.raises(ListenError, match="not a socket"):
        await unix.transport("node").listen(f"unix:{path}")

    assert path.read_text() == "data"


@in_loop
async def test_listen_in_a_missing_directory_is_an_error_and_leaks_nothing(
    unix: World, short_path: Path
) -> None:
    with pytest.raises(ListenError, match="the directory must exist"):
        await unix.transport("node").listen(f"unix:{short_path}/missing/node.sock")


@in_loop
async def test_close_removes_its_own_socket_path_only(short_path: Path) -> None:
    path = short_path / "node.sock"
    transport = SocketTransport(
        NodeIdentity("cluster", "node", 1, ()), Recorder(), TransportOptions()
    )
    await transport.listen(f"unix:{path}")
    await transport.close()
    assert not path.exists()

    transport = SocketTransport(
        NodeIdentity("cluster", "node", 1, ()), Recorder(), TransportOptions()
    )
    await transport.listen(f"unix:{path}")
    path.unlink()
    successor = open_unix(UnixAddress(str(path)))
    await transport.close()
    assert path.exists()
    successor.close()
    assert not path.exists()


def test_failed_bind_leaks_no_socket(monkeypatch: pytest.MonkeyPatch, short_path: Path) -> None:
    """A leak would show as a ResourceWarning, which is an error here."""

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(ListenError, match="No space left"):
        open_unix(UnixAddress(str(short_path / "node.sock")))
    assert list(short_path.iterdir()) == []
    with pytest.raises(ListenError, match="no address"):
        open_all([TcpPlace(TcpAddress("nowhere", 0, 0), [])])


@in_loop
async def test_accepting_goes_on_when_file_descriptors_were_short(
    tcp: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sockets, "_ACCEPT_PAUSE", 0.001)
    accept = socket.socket.accept
    failures = [OSError(errno.EMFILE, "Too many open files"), ConnectionAbortedError()]

    def short(listening: socket.socket) -> object:
        if failures:
            raise failures.pop()
        return accept(listening)

    monkeypatch.setattr(socket.socket, "accept", short)
    address = await tcp.listening("acceptor", Recorder())

    await tcp.transport("dialler").dial(address)

    assert ["Too many open files" in record.getMessage() for record in caplog.records] == [True]


@in_loop
async def test_connection_that_comes_while_the_transport_closes_raises_nothing(
    short_path: Path,
) -> None:
    loop = asyncio.get_running_loop()
    raised: list[object] = []
    loop.set_exception_handler(lambda _, context: raised.append(context))
    for turns in range(6):
        transport = World("unix", short_path, None).transport("acceptor")
        address = await transport.listen(f"unix:{short_path}/{turns}")
        await asyncio.sleep(0.001)
        with socket.socket(socket.AF_UNIX) as dialling:
            dialling.connect(address.removeprefix("unix:"))
            for _ in range(turns):
                await asyncio.sleep(0)
            await transport.close()
    gc.collect()
    assert raised == []


@in_loop
async def test_dialling_and_listening_after_closing_are_refused(socket_world: World) -> None:
    address = await socket_world.listening("acceptor", Recorder())
    transport = socket_world.transport("node")
    await transport.close()

    with pytest.raises(DialError, match="the transport is closed"):
        await transport.dial(address)
    with pytest.raises(ListenError, match="the transport is closed"):
        await transport.listen(socket_world.free_address("node"))


@in_loop
async def test_certificate_of_another_authority_is_rejected_at_both_ends(
    short_path: Path,
    tls: TLS,
    certificates: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_authority(tmp_path, "stranger")
    sign(tmp_path, "visitor", "stranger")
    foreign = TLS.from_files(
        tmp_path / "visitor.pem", tmp_path / "visitor.key", tmp_path / "stranger.pem"
    )
    world, abroad = World("tls", short_path, tls), World("tls", short_path, foreign)
    recorder = Recorder()
    address = await world.listening("acceptor", recorder)

    with pytest.raises(HandshakeError, match="TLS failed"):
        await abroad.transport("visitor").dial(address)
    foreign.client.load_verify_locations(certificates / "authority.pem")
    trusting = World("tls", short_path, foreign)
    with pytest.raises((HandshakeError, DialError)):
        await trusting.transport("visitor").dial(address)

    assert not recorder.opened
    assert "TLS failed" in caplog.text
    for made in (world, abroad, trusting):
        await made.close()


@in_loop
async def test_plain_peer_and_a_tls_peer_never_link(short_path: Path, tls: TLS) -> None:
    encrypted, plain = World("tls", short_path, tls), World("tcp", short_path, None)
    recorder = Recorder()
    there = await encrypted.listening("encrypted", recorder)
    here = await plain.listening("plain", recorder)

    with pytest.raises((HandshakeError, DialError)):
        await plain.transport("dialler").dial(there)
    with pytest.raises((HandshakeError, DialError)):
        await encrypted.transport("dialler").dial(here)

    assert not recorder.opened
    for made in (encrypted, plain):
        await made.close()


@in_loop
async def test_silent_peer_is_closed_before_the_tls_handshake(short_path: Path, tls: TLS) -> None:
    world = World("tls", short_path, tls)
    limits = TransportLimits(handshake_timeout=0.05, close_grace=0.02)
    raw = await world.connect_bare(await world.listening("acceptor", Recorder(), limits=limits))
    await until(lambda: raw.hung_up)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        dial = world.transport("dialler", limits=limits).dial(
            f"127.0.0.1:{silent.getsockname()[1]}"
        )
        with pytest.raises(DialError, match=r"no TLS handshake within 0\.05 s"):
            await dial
    await world.close()


def test_tls_from_files_is_mutual_and_modern(tls: TLS) -> None:
    assert tls.mutual
    for context in (tls.server, tls.client):
        assert context.minimum_version.name == "TLSv1_2"
        assert not context.check_hostname


def test_tls_files_that_cannot_be_used_are_named(certificates: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"'/missing\.pem'"):
        TLS.from_files("/missing.pem", certificates / "node.key", certificates / "authority.pem")
    with pytest.raises(ConfigurationError, match="must be PEM files"):
        TLS.from_files(
            certificates / "node.pem", certificates / "authority.key", certificates / "node.pem"
        )


@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", ":1", "10.0.0.1:1", "example.org:1"])
def test_address_that_others_reach_needs_protection(address: str, tls: TLS) -> None:
    with pytest.raises(ConfigurationError) as caught:
        require_security(["127.0.0.1:1", address], None, None)
    for hint in (address, "secret=", "ADSUM_SECRET", "tls="):
        assert hint in str(caught.value)
    with pytest.raises(ConfigurationError):
        require_security([address], b"", None)

    require_security([address], b"secret", None)
    require_security([address], None, tls)


def test_tls_without_verification_counts_as_no_protection() -> None:
    one_sided = TLS(
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    )

    assert not one_sided.mutual
    with pytest.raises(ConfigurationError):
        require_security(["10.0.0.1:1"], None, one_sided)


def test_addresses_of_this_host_need_no_protection() -> None:
    require_security(["127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/a"], None, None)


def test_sockets_work_in_another_event_loop(short_path: Path, tls: TLS) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def scenario(kind: str) -> None:
        world = World(kind, short_path, tls if kind == "tls" else None)
        dialler, acceptor = await world.pair()
        sent = [os.urandom(200_000) for _ in range(30)]
        for payload in sent:
            dialler.link.send(payload)
        dialler.link.close("done")
        await until(lambda: acceptor.closed and dialler.closed)
        assert acceptor.payloads == sent
        assert acceptor.reasons == ["peer closed: done"]
        with pytest.raises(DialRefusedError):
            await world.transport("lost").dial(f"unix:{short_path}/nobody")
        await world.close()

    for kind in ("tcp", "tls", "unix", "memory"):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(scenario(kind))


@pytest.mark.parametrize("loops", ["asyncio", "uvloop"])
@pytest.mark.parametrize("turns", range(1, 8))
def test_dial_that_is_cancelled_in_any_turn_leaves_no_link(
    tcp: World, loops: str, turns: int
) -> None:
    async def scenario() -> None:
        dialler = on_sockets(tcp, "dialler")
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            dialling = asyncio.create_task(dialler.dial(f"127.0.0.1:{port}"))
            while not dialler.connections():  # noqa: ASYNC110  # each turn counts
                await asyncio.sleep(0)
            for _ in range(turns):
                await asyncio.sleep(0)
            dialling.cancel()
            await asyncio.wait([dialling])
            await until(lambda: not dialler.connections())
        await tcp.close()

    with asyncio.Runner(loop_factory=pytest.importorskip(loops).new_event_loop) as runner:
        runner.run(scenario())


def on_sockets(world: World, name: str, handler: Recorder | None = None) -> SocketTransport:
    """A transport of a world without a memory network."""
    transport = world.transport(name, handler)
    assert isinstance(transport, SocketTransport)
    return transport


@in_loop
async def test_internal_handshake_error_closes_at_once_with_a_log_line_at_each_end(
    tcp: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def blocked(key: bytes) -> None:
        raise ValueError("[digital envelope routines] unsupported")

    address = await tcp.listening("acceptor", Recorder())
    dialler = tcp.transport("dialler", Recorder())
    # As a build of Python in FIPS mode does.
    monkeypatch.setattr("adsum.transport.handshake.FrameMac", blocked)

    with pytest.raises(DialError, match="internal error"):
        await dialler.dial(address)

    await until(lambda: not tcp.connections_of("acceptor"))
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]
