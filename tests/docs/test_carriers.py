"""The permissions of docs/carriers.md suffice for a cluster on a real server, and for no other."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import adsum
from tests.support.bus_servers import BusServer, NatsServer, RedisServer, running
from tests.support.markdown_pages import ROOT, blocks
from tests.support.nodes import run
from tests.support.waiting import eventually, until
from tests.support.worker_processes import Worker, Workers

pytestmark = pytest.mark.processes

PAGE = ROOT / "docs/carriers.md"
SECRET = "a secret of 16 bytes or more"
USER, PASSWORD = "shop", "the-password"
FOREIGN = "adsum.other.all"


def fenced(info: str) -> str:
    """The only block of the page with this name."""
    (text,) = (block.text for block in blocks(PAGE) if block.info == info)
    return text


class PermittedNats(NatsServer):
    """A nats-server with the page's block as its configuration."""

    def _arguments(self) -> list[str]:
        config = self.directory / "permitted.conf"
        config.write_text(fenced("text nats"))
        return ["--addr", "127.0.0.1", "--port", str(self.port), "--config", str(config)]


class PermittedRedis(RedisServer):
    """A redis-server with the page's user, and no other one."""

    def _arguments(self) -> list[str]:
        (config,) = map(Path, super()._arguments())
        usual = config.read_text().splitlines()
        lines = [line for line in usual if not line.startswith("user ")]
        config.write_text("\n".join([*lines, fenced("text redis")]))
        return [str(config)]


@pytest.fixture(params=[PermittedNats, PermittedRedis])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BusServer]:
    server: BusServer = request.param(tmp_path, user=USER, password=PASSWORD)
    with running(server):
        yield server


@pytest.fixture
def workers() -> Iterator[Workers]:
    with Workers() as workers:
        yield workers


def start(workers: Workers, url: str) -> Worker:
    # Silence alone would take longer than the test.
    settings = {"down_after": 600.0, "forget_after": 600.0, "siblings": False}
    return workers.start(cluster="shop", secret=SECRET, carrier=url, **settings)


@pytest.mark.parametrize("servers", [1, 2])
def test_nodes_with_the_permissions_see_joins_kills_and_a_restart(
    server: BusServer, workers: Workers, servers: int
) -> None:
    # Several servers need further commands of Redis; nobody listens at the second one.
    more = f",{server.scheme}://{USER}:{PASSWORD}@127.0.0.1:1" if servers == 2 else ""
    one, two, three = (start(workers, server.url + more) for _ in range(3))
    for worker, key in ((one, "ann"), (two, "bob"), (three, "cid")):
        worker.ask("track", "room", key, {})
    eventually(lambda: all(each.lists("ann", "bob", "cid") for each in (one, two, three)))
    one.signal(signal.SIGKILL)
    eventually(lambda: all(each.lists("bob", "cid") for each in (two, three)))
    server.restart()
    two.ask("track", "room", "dan", {})
    eventually(lambda: three.lists("bob", "cid", "dan"))


def test_node_of_another_cluster_is_denied(server: BusServer) -> None:
    async def main() -> None:
        node = adsum.Node(cluster="other", secret=SECRET, carrier=server.url, siblings=False)
        with pytest.raises(adsum.CarrierError, match=r"(?i)permission"):
            await node.start()

    run(main())


def test_user_is_denied_other_subjects(server: BusServer) -> None:
    attempts = try_on_nats if isinstance(server, NatsServer) else try_on_redis
    assert run(attempts(server)) == {
        "publish elsewhere": False,
        "subscribe elsewhere": False,
        "subscribe to everything": False,
        "publish in the cluster": True,
        "subscribe in the cluster": True,
    }


def test_client_of_redis_without_credentials_is_refused(tmp_path: Path) -> None:
    redis = pytest.importorskip("redis")
    server = PermittedRedis(tmp_path, user=USER, password=PASSWORD)
    stranger = redis.Redis(port=server.port)
    with running(server), stranger, pytest.raises(redis.exceptions.AuthenticationError):
        stranger.ping()


def test_user_of_redis_reaches_no_key_and_no_administration(tmp_path: Path) -> None:
    redis = pytest.importorskip("redis")
    server = PermittedRedis(tmp_path, user=USER, password=PASSWORD)
    with running(server), redis.Redis.from_url(server.url) as client:
        for command in (
            ("GET", "adsum.shop.all"),
            ("SET", "adsum.shop.all", "1"),
            ("FLUSHALL",),
            ("CLIENT", "KILL", "TYPE", "pubsub"),
            ("PUBSUB", "CHANNELS"),
            ("CONFIG", "GET", "*"),
            ("ACL", "LIST"),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)


async def try_on_nats(server: BusServer) -> dict[str, bool]:
    """Whether the server permits each attempt, by its errors, which name the subject."""
    from nats.aio.client import Client

    denied = list[str]()

    async def note(error: Exception) -> None:
        denied.append(str(error).lower())

    client = Client()
    await client.connect(server.url, error_cb=note)
    try:
        await client.publish(FOREIGN, b"x")
        await client.subscribe(FOREIGN)
        await client.subscribe(">")
        await client.publish("adsum.shop.all", b"x")
        await client.subscribe("adsum.shop.node.*")
        await client.flush()
        await until(lambda: len(denied) >= 3, "the server denies three attempts")
    finally:
        await client.close()
    return {
        name: not any(f'violation for {attempt}"' in each for each in denied)
        for name, attempt in {
            "publish elsewhere": f'publish to "{FOREIGN}',
            "subscribe elsewhere": f'subscription to "{FOREIGN}',
            "subscribe to everything": 'subscription to ">',
            "publish in the cluster": 'publish to "adsum.shop.all',
            "subscribe in the cluster": 'subscription to "adsum.shop.node.*',
        }.items()
    }


async def try_on_redis(server: BusServer) -> dict[str, bool]:
    """Whether the server permits each attempt, by its answers."""
    from redis.asyncio import Redis
    from redis.exceptions import NoPermissionError

    async def attempt(*command: str) -> bool:
        client = Redis.from_url(server.url, single_connection_client=True, protocol=2)
        try:
            await client.execute_command(*command)  # type: ignore[no-untyped-call]  # of redis-py
        except NoPermissionError:
            return False
        finally:
            await client.aclose()
        return True

    async with asyncio.timeout(30):
        return {
            "publish elsewhere": await attempt("PUBLISH", FOREIGN, "x"),
            "subscribe elsewhere": await attempt("SUBSCRIBE", FOREIGN),
            "subscribe to everything": await attempt("PSUBSCRIBE", "*"),
            "publish in the cluster": await attempt("PUBLISH", "adsum.shop.all", "x"),
            "subscribe in the cluster": await attempt("SUBSCRIBE", "adsum.shop.node.1"),
        }
