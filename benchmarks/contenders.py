"""The servers whose chats are measured, started by their command lines, and their clients.

A worker is a uvicorn of its own, with a port of its own, so that clients are spread evenly.
"""

import contextlib
import importlib
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import adsum
from benchmarks import redis_presence
from benchmarks.plan import Plan
from benchmarks.redis_presence import free_port, redis_server
from benchmarks.waiting import block_until

#: Names the variable with the address of Redis, for the applications.
REDIS = "BENCHMARK_REDIS"
#: Names the variable with the channel layer over Redis, for Django Channels.
LAYER = "BENCHMARK_LAYER"
_ROOT = Path(__file__).resolve().parents[1]
_SOURCE = Path(adsum.__file__).resolve().parents[1]
_PROTOCOL = "adsum.channels.uvicorn", "WebSocketProtocol"
#: Seconds in which a server starts, and in which it ends.
_PATIENCE = 30.0
_GRACE = 5.0


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to serve the chat.

    Attributes:
        name: As it appears in the report.
        app: The application for uvicorn, without `benchmarks.`.
        dialect: Of its clients, see `DIALECTS`.
        arguments: Of uvicorn, besides the usual.
        source: The folder of adsum's package.
        redis_from: The number of workers from which on it uses Redis; 0: it never does.
    """

    name: str
    app: str
    dialect: str
    arguments: tuple[str, ...] = ()
    source: Path = _SOURCE
    redis_from: int = 0


@dataclass(frozen=True, slots=True)
class ChatSite:
    """The running workers of a contender.

    Attributes:
        contender: Which one.
        ports: One for each worker.
        pids: One for each worker.
        redis: The process of Redis, if there is one.
    """

    contender: Contender
    ports: tuple[int, ...]
    pids: tuple[int, ...]
    redis: tuple[int, ...]

    @property
    def processes(self) -> tuple[int, ...]:
        """The processes whose CPU counts: the workers, and Redis."""
        return self.pids + self.redis

    @property
    def description(self) -> str:
        """The number of workers, in words."""
        return f"{len(self.pids)} worker{'s' * (len(self.pids) > 1)}"

    def cpu(self, seconds: Sequence[float]) -> list[tuple[str, float]]:
        """The CPU of the servers together and that of Redis, from that of all `processes`."""
        count = len(self.pids)
        found = [("the servers", sum(seconds[:count]))]
        return found + [("redis-server", each) for each in seconds[count:]]


def contenders(plan: Plan) -> list[Contender]:
    """Those that can be measured here; prints the reason for each that cannot."""
    found = adsum_contenders(plan)
    others = [
        (Contender("python-socketio", "socketio_chat", "socketio", redis_from=2), "socketio"),
        (Contender("python-socketio, adsum", "socketio_over_adsum", "socketio"), "socketio"),
        (Contender("Django Channels", "django_chat", "django", redis_from=1), "channels_redis"),
    ]
    for contender, module in others:
        why_not = (contender.redis_from and redis_presence.missing()) or _why_not(module)
        if why_not:
            print(f"  {contender.name}: skipped, {why_not}")
        else:
            found.append(contender)
    return found


def layer_contenders() -> list[Contender]:
    """Django Channels with the layers over Redis and that of adsum; none if they are not installed.

    Prints the reason.
    """
    why_not = redis_presence.missing() or _why_not("channels_redis")
    if why_not:
        print(f"  channel layers: skipped, {why_not}")
        return []
    return [
        Contender("channels_redis", "django_chat", "django", redis_from=1),
        Contender("channels_redis, pubsub", "django_chat_pubsub", "django", redis_from=1),
        Contender("adsum", "django_chat", "django"),
    ]


def adsum_contenders(plan: Plan) -> list[Contender]:
    """adsum by the usual path, by the direct one, and an earlier version if the plan has one."""
    found = [Contender("adsum", "adsum_chat", "phoenix")]
    module, name = _PROTOCOL
    with contextlib.suppress(ImportError):
        if hasattr(importlib.import_module(module), name):
            arguments = ("--ws", f"{module}:{name}")
            found.append(Contender("adsum, direct", "adsum_chat", "phoenix", arguments))
    if plan.earlier is not None:
        found.append(Contender("adsum before", "adsum_chat", "phoenix", source=plan.earlier))
    return found


def _why_not(module: str) -> str:
    try:
        importlib.import_module(module)
    except ImportError:
        return f"the Python package {module} is not installed"
    return ""


@contextmanager
def chat_site(contender: Contender, workers: int) -> Iterator[ChatSite]:
    """So many workers of a contender for the length of a block, and Redis if they need it."""
    environment = os.environ | {"ADSUM_CLUSTER": f"benchmark-{secrets.token_hex(4)}"}
    environment["PYTHONPATH"] = os.pathsep.join([str(contender.source), str(_ROOT)])
    with ExitStack() as stack:
        redis: tuple[int, ...] = ()
        if contender.redis_from and workers >= contender.redis_from:
            port = stack.enter_context(redis_server())
            environment[REDIS] = f"redis://127.0.0.1:{port}"
            redis = (_redis_pid(port),)
        started = [stack.enter_context(_server(contender, environment)) for _ in range(workers)]
        ports, pids = zip(*started, strict=True)
        yield ChatSite(contender, ports, pids, redis)


@contextmanager
def reported(contender: Contender) -> Iterator[None]:
    """Print the failure of one contender in the block, so that the others are still measured."""
    try:
        yield
    except RuntimeError as error:
        print(f"  {contender.name}: failed, {error}")


@contextmanager
def _server(contender: Contender, environment: dict[str, str]) -> Iterator[tuple[int, int]]:
    """One uvicorn for the length of a block: its port and its process."""
    port = free_port()
    process = subprocess.Popen(
        [*_command(contender.app, port), *contender.arguments], cwd=_ROOT, env=environment
    )
    try:
        block_until(lambda: _accepts(port, process), pause=0.02, patience=_PATIENCE)
        yield port, process.pid
    finally:
        process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _command(app: str, port: int) -> Sequence[str]:
    options = ("--host", "127.0.0.1", "--port", str(port), "--log-level", "warning")
    return (sys.executable, "-m", "uvicorn", f"benchmarks.{app}:app", *options, "--no-access-log")


def _accepts(port: int, process: "subprocess.Popen[bytes]") -> bool:
    if process.poll() is not None:
        raise RuntimeError("a server did not start")
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _redis_pid(port: int) -> int:
    import redis

    with redis.Redis(port=port) as client:
        return int(client.info("server")["process_id"])
