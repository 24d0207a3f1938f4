"""Whatever clients and peers send, log lines are printable, short and few, and none is forged."""

import asyncio
import json
import logging
import random
from collections.abc import Iterator
from typing import Any

import pytest

from adsum.channels import Channel, Client, RefusedError, Socket, intercept, on
from adsum.errors import ProtocolError
from adsum.quoting import quoted
from adsum.replication import codec
from adsum.replication.messages import Publish
from adsum.transport.contract import NodeIdentity
from adsum.transport.handshake import Handshake, decode_hello
from adsum.values.jsontext import dump
from adsum.values.names import RESERVED
from tests.support.waiting import until

from .app import App
from .asgi_client import AsgiClient, asgi_client
from .leak_check import run

#: No line of the log may begin with it, and nothing may be longer.
FORGED = "FORGED 2026-01-01 ERROR the disk is full"
LONGEST_LINE = 1000

PIECES = [
    f"\n{FORGED}",
    f"\r{FORGED}",
    f"\u2028{FORGED}\x85{FORGED}\x0b{FORGED}",
    "\x1b[2J\x1b]0;title\x07",
    "\u202e\ufeff\u200b",
    "x" * 2000,
    "\x00\x01\x7f\x9b",
    "'\"\\",
    "%s%d%n{0}{x.__class__}",
    "\U000e0001" * 50,
    "\ud800",
    "room",
    "é漢字😀",
]


def nasty(random_: random.Random) -> str:
    """A text that would forge or flood a log."""
    return "".join(random_.choice(PIECES) for _ in range(random_.randint(1, 4)))


def nasty_json(random_: random.Random, depth: int = 0) -> Any:
    """A JSON value with such texts as keys and items, sometimes deeper than is accepted."""
    match random_.randrange(4):
        case 0 if depth < 6:
            return {nasty(random_): nasty_json(random_, depth + 1) for _ in range(2)}
        case 1 if depth < 6:
            return [nasty_json(random_, depth + 1) for _ in range(2)]
        case 2:
            value: Any = nasty(random_)
            for _ in range(40):
                value = {nasty(random_)[:200]: value}
            return value
    return random_.choice([nasty(random_), 10**400, 1.5, None, True])


class Room(Channel, topic="{any}"):
    """Does what careless applications do with what clients send."""

    async def join(self, payload: Any) -> None:
        match self.client.params.get("join"):
            case "user":
                self.track(payload["user"])
            case "key":
                self.track(next(iter(payload)), payload)
            case "lookup":
                self.client.assigns[json.dumps(payload)]
            case "refuse":
                raise RefusedError(payload)

    @on("meta")
    async def meta(self, payload: Any) -> Any:
        self.track("me", payload)
        return payload

    @on("twice")
    async def twice(self, payload: Any) -> None:
        self.track(str(payload)[:1000])
        self.track(str(payload)[:1000])

    @on("raise")
    async def raise_it(self, payload: Any) -> None:
        try:
            raise ValueError(str(payload))
        except ValueError as error:
            raise RuntimeError(f"wrong: {payload}") from error

    @on("push")
    async def push_it(self, payload: Any) -> None:
        self.push(str(payload), payload)

    @on("broadcast")
    async def broadcast_it(self, payload: Any) -> None:
        await self.broadcast("shown", payload)

    @intercept("shown")
    async def shown(self, payload: Any) -> Any:
        raise LookupError(payload)


async def connect(client: Client) -> None:
    """Take over what the client says, or crash with it."""
    client.id = client.params.get("id")
    match client.params.get("connect"):
        case "refuse":
            raise RefusedError(client.params)
        case "crash":
            raise RuntimeError(f"unknown: {client.params}")


class Written:
    """The lines of the log as a usual handler writes them."""

    def __init__(self) -> None:
        self.records: list[str] = []
        self.handler = logging.StreamHandler()
        self.handler.setFormatter(logging.Formatter("LOG %(levelname)s %(message)s"))
        self.handler.emit = self._emit  # type: ignore[method-assign]

    def _emit(self, record: logging.LogRecord) -> None:
        self.records.append(self.handler.format(record))

    def check(self) -> None:
        """Fail if a client could have written a line of its own."""
        for text in self.records:
            head, *traceback = text.split("\n")
            assert head.isprintable(), head
            assert len(head) <= LONGEST_LINE
            assert all(one.isprintable() and len(one) <= LONGEST_LINE for one in traceback)
            assert not any(one.lstrip().startswith("FORGED") for one in traceback)
            assert len(traceback) < 150


@pytest.fixture
def written() -> Iterator[Written]:
    made = Written()
    logger = logging.getLogger("adsum")
    logger.addHandler(made.handler)
    logger.setLevel(logging.DEBUG)
    yield made
    logger.removeHandler(made.handler)
    logger.setLevel(logging.NOTSET)


def url(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode(errors="surrogatepass"))


def header(text: str) -> bytes:
    return text.encode("latin-1", errors="replace")


@pytest.mark.parametrize("seed", range(8))
def test_no_client_frame_forges_a_log_line(seed: int, written: Written) -> None:
    random_ = random.Random(seed)

    async def main() -> None:
        app = App(Room, connect=connect)
        async with app.node:
            for kind in ["user", "key", "lookup", "refuse", ""] * 3:
                query = f"vsn=2.0.0&join={kind}&id={url(nasty(random_))}"
                await misbehave(AsgiClient(app.socket, query), random_)
        written.check()
        assert written.records

    run(main())


async def misbehave(client: AsgiClient, random_: random.Random) -> None:
    """Join, and send nasty events until the server has had enough."""
    await client.open()
    topic = nasty(random_)[: random_.choice([5, 900, 2000])]
    client.push("1", "1", topic, "phx_join", nasty_json(random_))
    for event in ["meta", "twice", "raise", "push", "broadcast", nasty(random_)]:
        client.push("1", "1", topic, "phx_join", {})
        client.push(random_.choice(["1", nasty(random_)]), "2", topic, event, nasty_json(random_))
    cut_off = b"\0\x05\x05" + header(nasty(random_))
    client.send(cut_off if random_.random() < 0.3 else random_.choice([nasty(random_), "[1,2]"]))
    await until(lambda: client.closed is not None or not client.unread)
    if client.closed is None:
        client.vanish()
    await client.served()


@pytest.mark.parametrize("seed", range(8))
def test_no_request_forges_a_log_line(seed: int, written: Written) -> None:
    random_ = random.Random(seed)

    async def main() -> None:
        app = App(Room, connect=connect)
        async with app.node:
            for place in ["origin", "host", "vsn", "subprotocol", "refuse", "crash", "address"] * 2:
                client = AsgiClient(app.socket, "vsn=2.0.0")
                spoil(client._scope, place, nasty(random_))
                await client.open()
                if client.closed is None:
                    client.send("nonsense")
                await client.served()
                await spoil_poll(app.socket, place, random_)
        written.check()
        assert len(written.records) >= 5

    run(main())


def spoil(scope: dict[str, Any], place: str, text: str) -> None:
    """Put a text into one place of a request."""
    match place:
        case "origin" | "host":
            scope["headers"] = [(place.encode(), header(text)), (b"origin", b"https://other")]
        case "vsn":
            scope["query_string"] = f"vsn={url(text)}".encode()
        case "subprotocol":
            scope["subprotocols"] = ["phoenix", f"base64url.bearer.phx.{text}"]
        case "refuse" | "crash":
            scope["query_string"] = f"vsn=2.0.0&connect={place}&x={url(text)}".encode()
        case "address":
            scope["client"] = (text, 0)


async def spoil_poll(socket: Socket, place: str, random_: random.Random) -> None:
    """The same for requests of a client that polls."""
    for method in ("GET", "POST"):
        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": "/socket/longpoll",
            "query_string": f"vsn={url(nasty(random_))}&token={url(nasty(random_))}".encode(),
            "headers": [(b"host", b"testserver")],
            "client": ("testclient", 0),
        }
        spoil(scope, place, nasty(random_))
        await ask(socket, scope, b"\xff" + header(nasty(random_)))


async def ask(socket: Socket, scope: dict[str, Any], body: bytes) -> None:
    """One request."""
    requests = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if requests:
            return requests.pop()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        pass

    await socket(scope, receive, send)


@pytest.mark.parametrize("seed", range(4))
def test_no_message_of_a_peer_forges_a_log_line(seed: int, written: Written) -> None:
    random_ = random.Random(seed)

    async def main() -> None:
        app = App(Room)
        async with app.node, asgi_client(app.socket) as ann:
            await ann.join("room")
            for _ in range(20):
                for topic in ["channels/relay", "channels/text/room", "channels/bytes/room"]:
                    payload = {"number": nasty(random_), "text": nasty_json(random_)}
                    message = Publish(RESERVED + topic, nasty(random_), dump(payload))
                    app.node.driver.deliver(nasty(random_), message)
        written.check()
        assert written.records

    run(main())


@pytest.mark.parametrize("seed", range(20))
def test_no_text_of_a_peers_frame_enters_an_error(seed: int) -> None:
    random_ = random.Random(seed)
    found: list[str] = []
    for kind in range(12):
        for size in range(1, 12):
            fields = [kind, *(random_.choice([nasty_json(random_), 1, "x"]) for _ in range(size))]
            try:
                codec.decode(json.dumps(fields).encode())
            except ProtocolError as error:
                found.append(str(error))
    assert found
    assert all(text.isprintable() and len(text) <= 500 for text in found)


def test_rejected_meta_of_a_peer_is_named_by_a_short_path() -> None:
    meta: Any = 1
    for _ in range(40):
        meta = {f"\n{FORGED}" + "k" * 1000: meta}
    columns = [[1], [0], ["room"], ["ann"], [json.dumps(meta, separators=(",", ":"))], [0], [], []]
    with pytest.raises(ProtocolError, match="nested deeper") as error:
        codec.decode(json.dumps([codec.DELTA, "peer", 1, 0, 1, 1, *columns]).encode())
    assert str(error.value).isprintable()
    assert len(str(error.value)) <= 400


def test_no_text_of_a_hello_enters_an_error() -> None:
    hello = ["adsum", [3, 3], f"c\n{FORGED}" + "\U000e0001" * 200, "n", 1, [], "00" * 32]
    assert decode_hello(json.dumps(hello).encode())
    own = Handshake(NodeIdentity("main", "me", 1, ()), dialling=False, secret=None)
    with pytest.raises(ProtocolError, match="clusters differ") as error:
        own.receive(1, json.dumps(hello).encode())
    assert str(error.value).isprintable()
    assert len(str(error.value)) <= 400


def test_join_crash_flood_costs_one_traceback(written: Written) -> None:
    async def main() -> None:
        app = App(Room, connect=connect)
        async with app.node:
            for _ in range(10):
                async with asgi_client(app.socket, "vsn=2.0.0&join=user") as client:
                    for number in range(100):
                        client.push("1", str(number), f"room-{number}", "phx_join", {})
                    await client.reply("99")
        assert len(written.records) <= 10
        assert sum("Traceback" in one for one in written.records) == 1
        assert sum("more like it" in one for one in written.records) >= 1
        written.check()

    run(main())


@pytest.mark.parametrize("what", ["garbage", "unknown events", "refusals", "crashes of connect"])
def test_reconnect_flood_costs_few_log_lines(what: str, written: Written) -> None:
    queries = {"refusals": "connect=refuse", "crashes of connect": "connect=crash"}

    async def main() -> None:
        app = App(Room, connect=connect)
        async with app.node:
            for number in range(100):
                client = AsgiClient(app.socket, f"vsn=2.0.0&{queries.get(what, '')}")
                await client.open()
                client.push("1", "1", "room", "phx_join", {})
                client.push("1", "2", "room", f"unknown {number}", {})
                client.send("garbage")
                await client.served()
        assert len(written.records) <= 15
        written.check()

    run(main())


def test_longest_keys_cost_few_characters_in_the_log(written: Written) -> None:
    async def main() -> None:
        app = App(Room)
        async with app.node, asgi_client(app.socket) as client:
            for number in range(100):
                deep: Any = 1
                for _ in range(34):
                    deep = {"\n" + "k" * 900: deep}
                client.push("1", f"{number}", "room", "phx_join", {})
                client.push("1", "x", "room", "meta", deep)
            await until(lambda: not client.unread)
            await client.is_alive()
        assert sum(map(len, written.records)) < 10_000
        written.check()

    run(main())


def test_quoted_texts_are_as_the_checks_assume() -> None:
    assert quoted(f"\n{FORGED}") == f"'\\n{FORGED}'"
