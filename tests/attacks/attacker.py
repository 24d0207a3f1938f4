"""Everything that an attacker does, in a process of its own: `attacker.py NAME '{"port": ...}'`.

It says ``ready`` when its payloads are made, begins when it is sent a line, goes on for the seconds
that it is given, and ends with a report: a JSON object on its standard output.

It speaks to raw sockets, for speed: WebSocket frames are masked with zeros, so they are made once.
"""

import base64
import contextlib
import ctypes
import http.client
import json
import os
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MIB = 1024 * 1024
#: Seconds that one operation of the attacker may take, whatever the server does.
PATIENCE = 8.0
#: What a log would show as a line of its own, if it let it through.
FORGED = "FORGED LINE"
#: From <asm-generic/socket.h>.
SO_ATTACH_FILTER = 26
HEARTBEAT = '[null,"7","phoenix","heartbeat",{}]'


@dataclass
class Target:
    """What is attacked, and for how long.

    Attributes:
        port: Where the attacked server serves clients.
        sibling_port: Where the other one does.
        links: The addresses of the nodes' TCP listeners.
        sockets: The paths of their Unix sockets.
        seconds: How long the attack goes on.
    """

    port: int
    sibling_port: int
    links: list[str]
    sockets: list[str]
    seconds: float
    began: float = 0.0
    report: Counter[str] = field(default_factory=Counter)

    def goes_on(self) -> bool:
        return time.monotonic() < self.began + self.seconds

    def repeat(self, act: Callable[[], object]) -> None:
        """Do it again and again; what the server refuses is counted."""
        while self.goes_on():
            try:
                act()
            except (OSError, http.client.HTTPException, EOFError) as error:
                self.report[type(error).__name__] += 1
                time.sleep(0.001)
            else:
                self.report["done"] += 1

    def in_parallel(self, count: int, act: Callable[[], object]) -> None:
        """Repeat it in so many threads."""
        threads = [threading.Thread(target=self.repeat, args=[act]) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


Attack = Callable[[Target], Callable[[], object]]
ATTACKS: dict[str, Attack] = {}


def attack(make: Attack) -> Attack:
    """Register what makes the payloads, and returns what then attacks."""
    ATTACKS[make.__name__] = make
    return make


# WebSocket.


class Tab:
    """A client over WebSocket; `read` is the only thing that reads."""

    def __init__(self, port: int, *, buffer: int | None = None) -> None:
        self.sock = socket.socket()
        self.sock.settimeout(PATIENCE)
        try:
            if buffer is not None:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            self.sock.connect(("127.0.0.1", port))
            self.sock.sendall(upgrade(port))
            self.buffer = b""
            while b"\r\n\r\n" not in self.buffer:
                self._receive()
            head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
            if b" 101 " not in head.split(b"\r\n")[0]:
                raise ConnectionRefusedError(head[:50])
        except BaseException:
            self.sock.close()
            raise

    def send(self, *texts: str) -> None:
        self.sock.sendall(b"".join(frame(text.encode()) for text in texts))

    def join(self, topic: str, payload: Any) -> None:
        self.send(json.dumps(["3", "3", topic, "phx_join", payload]))

    def read(self) -> bytes:
        """The payload of the next frame; a close frame raises `EOFError`."""
        head = self._take(2)
        size = head[1] & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", self._take(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", self._take(8))
        payload = self._take(size)
        if head[0] & 0x0F == 8:
            raise EOFError(struct.unpack(">H", payload[:2])[0] if payload else 1005)
        return payload

    def drain(self) -> None:
        """Read until the server closes."""
        with contextlib.suppress(EOFError):
            while True:
                self.read()

    def close(self) -> None:
        self.sock.close()

    def _take(self, size: int) -> bytes:
        while len(self.buffer) < size:
            self._receive()
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def _receive(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError(1006)
        self.buffer += data


def upgrade(port: int) -> bytes:
    lines = [
        "GET /socket/websocket?vsn=2.0.0 HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
        "Sec-WebSocket-Version: 13",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def frame(payload: bytes) -> bytes:
    """A masked text frame; the mask is zero."""
    size = len(payload)
    if size < 126:
        head = struct.pack(">BB", 0x81, 0x80 | size)
    elif size < 65536:
        head = struct.pack(">BBH", 0x81, 0x80 | 126, size)
    else:
        head = struct.pack(">BBQ", 0x81, 0x80 | 127, size)
    return head + bytes(4) + payload


# Long polling.


def request(port: int, method: str, token: str = "", body: bytes = b"") -> Any:
    """The JSON object that the server answers with."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        where = f"/socket/longpoll?vsn=2.0.0&token={token}"
        headers = {"content-type": "application/x-ndjson", "connection": "close"}
        connection.request(method, where, body or None, headers)
        answer = connection.getresponse()
        content = answer.read()
        return json.loads(content) if content else {"status": answer.status}
    finally:
        connection.close()


def session(port: int) -> str:
    return str(request(port, "GET")["token"])


def filled(line: str) -> bytes:
    """1 MiB of one line."""
    text = f"{line}\n".encode()
    return text * (MIB // len(text))


def posts(target: Target, line: str) -> Callable[[], object]:
    body = filled(line)

    def post() -> None:
        answer = request(target.port, "POST", session(target.port), body)
        target.report[f"status {answer['status']}"] += 1

    return lambda: target.in_parallel(3, post)


@attack
def malformed_lines(target: Target) -> Callable[[], object]:
    return posts(target, "x")


@attack
def empty_lines(target: Target) -> Callable[[], object]:
    return posts(target, "")


@attack
def valid_lines(target: Target) -> Callable[[], object]:
    return posts(target, HEARTBEAT)


@attack
def base64_lines(target: Target) -> Callable[[], object]:
    return posts(target, base64.b64encode(binary_push()).decode())


def binary_push() -> bytes:
    parts = [b"3", b"9", b"room:calm", b"echo"]
    return bytes([0, *map(len, parts)]) + b"".join(parts)


def altered(token: str, *places: int) -> list[str]:
    """The token with some of its parts cut, made up, or altered in one character."""
    parts = token.split(".")
    found = []
    for place in places:
        part = parts[place]
        for other in (swapped(part[:1]) + part[1:], part[:-1] + swapped(part[-1:]), part[1:], "7"):
            found.append(".".join([*parts[:place], other, *parts[place + 1 :]]))
    return [one for one in found if one != token]


def swapped(character: str) -> str:
    return "A" if character != "A" else "B"


def post_with(target: Target, tokens: list[str], body: bytes) -> Callable[[], object]:
    turn = iter(range(10**9))

    def post() -> None:
        answer = request(target.port, "POST", tokens[next(turn) % len(tokens)], body)
        target.report[f"status {answer['status']}"] += 1

    return lambda: target.in_parallel(32, post)


@attack
def forged_tokens(target: Target) -> Callable[[], object]:
    """Tokens of the sibling's sessions altered in each part, with the largest body."""
    token = session(target.sibling_port)
    return post_with(target, altered(token, *range(token.count(".") + 1)), incompressible(MIB - 1))


@attack
def forged_sessions(target: Target) -> Callable[[], object]:
    """Tokens that name the sibling rightly, and no session that it has."""
    tokens = altered(session(target.sibling_port), 1)
    return post_with(target, tokens, incompressible(MIB - 1))


@attack
def relayed_bodies(target: Target) -> Callable[[], object]:
    """Genuine sessions of the sibling send the most that they may through the other server."""
    payload = {"text": incompressible(60_000).decode()}
    line = json.dumps(["3", "9", "room:none", "echo", payload])
    body = "\n".join([line] * 16).encode()
    mine = threading.local()

    def post() -> None:
        if not hasattr(mine, "token"):
            mine.token = session(target.sibling_port)
        answer = request(target.port, "POST", mine.token, body)
        target.report[f"status {answer['status']}"] += 1
        if answer["status"] == 410:
            del mine.token

    return lambda: target.in_parallel(8, post)


def incompressible(size: int) -> bytes:
    return base64.b64encode(os.urandom(size))[:size]


# Frames.


def sixty_thousand(target: Target, text: str) -> Callable[[], object]:
    """60,000 frames at once, of a client that reads its replies; reports how it ended."""
    data = frame(text.encode()) * 60_000

    def send() -> None:
        tab = Tab(target.port)
        tab.join("room:frames", {"user": "flood"})
        sending = threading.Thread(target=send_all, args=[tab.sock, data])
        sending.start()
        try:
            while target.report["replies"] < 60_000:
                target.report["replies"] += b"phx_reply" in tab.read()
        except EOFError as error:
            target.report[f"closed {error}"] += 1
        except OSError as error:
            target.report[type(error).__name__] += 1
        finally:
            tab.close()
            sending.join()

    return send


def send_all(sock: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        sock.sendall(data)


@attack
def heartbeat_frames(target: Target) -> Callable[[], object]:
    return sixty_thousand(target, HEARTBEAT)


@attack
def push_frames(target: Target) -> Callable[[], object]:
    return sixty_thousand(target, '["3","9","room:frames","echo",{}]')


@attack
def malformed_frames(target: Target) -> Callable[[], object]:
    """60,000 frames that are none at once, again and again, with pauses as phoenix.js makes them.

    They are as long as heartbeats, and not faster. uvicorn parses the 256 KiB that it reads at a
    time in one turn of the event loop, which takes it 0.1 s for frames of this size and 0.4 s for
    the smallest, whatever the application is.
    """
    data = frame(b"x" * len(HEARTBEAT)) * 60_000

    def send() -> None:
        tab = Tab(target.port)
        try:
            send_all(tab.sock, data)
            tab.drain()
        finally:
            tab.close()
        time.sleep(0.25)

    return lambda: target.repeat(send)


# Links.


@attack
def silent_links(target: Target) -> Callable[[], object]:
    """64 connections to each listener that say nothing; each that is closed is opened again."""
    addresses: list[Any] = [(h, int(p)) for h, p in (at.split(":") for at in target.links)]
    addresses += target.sockets

    def hold() -> None:
        held = [(address, open_link(address)) for address in addresses for _ in range(64)]
        target.report["opened"] = len(held)
        while target.goes_on():
            time.sleep(0.1)
            for index, (address, sock) in enumerate(held):
                if is_closed(sock):
                    sock.close()
                    held[index] = address, open_link(address)
                    target.report["opened again"] += 1
        for _, sock in held:
            sock.close()

    return hold


def open_link(address: Any) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    sock.settimeout(PATIENCE)
    with contextlib.suppress(OSError):
        sock.connect(address)
    sock.setblocking(False)
    return sock


def is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(4096) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


# Logs.


def giant(size: int) -> str:
    """A key with everything that a log should not show."""
    unit = f'\n{FORGED}\r\n\x1b[2J\x00\u2028"\\'
    return (unit * (size // len(unit) + 1))[:size]


@attack
def giant_keys(target: Target) -> Callable[[], object]:
    key = giant(18_000)
    frames = [
        ["3", "3", "room:keys", "phx_join", {"user": key}],
        ["3", "3", "room:keys", "phx_join", {"user": "k", "meta": {key: 1}}],
        ["3", "3", "room:keys", "phx_join", {"user": {key: 1}}],
        ["3", "3", f"room:{key}", "phx_join", {"user": "k"}],
        ["3", "3", "room:keys", "phx_join", {key: 1}],
        ["3", "3", "room:keys", "phx_join", {"user": "k"}],
        ["3", "4", "room:keys", key, {}],
        [key, key, key, key, {key: key}],
        {key: key},
        [key],
    ]
    texts = [json.dumps(one, ensure_ascii=False) for one in frames]
    texts += [f'["3","3","room:keys","phx_join",{{{json.dumps(key)}:1,{json.dumps(key)}:2}}]', key]
    turn = iter(range(10**9))

    def send() -> None:
        tab = Tab(target.port)
        try:
            first = next(turn)
            tab.send(*(texts[(first + index) % len(texts)] for index in range(len(texts))))
            tab.drain()
        finally:
            tab.close()

    return lambda: target.in_parallel(4, send)


@attack
def log_flood(target: Target) -> Callable[[], object]:
    """Joins that crash, events that nobody handles, frames that are none: as fast as possible."""
    crash = json.dumps(["3", "3", "room:log", "phx_join", {}])
    join = json.dumps(["3", "3", "room:log", "phx_join", {"user": "log"}])
    unknown = json.dumps(["3", "4", "room:log", f"nobody {FORGED}", {}])
    bad_queries = iter(range(10**9))

    def send() -> None:
        tab = Tab(target.port)
        try:
            for _ in range(20):
                tab.send(*[crash] * 5, join, unknown)
            tab.send("garbage")
            tab.drain()
        finally:
            tab.close()
        with contextlib.suppress(ValueError):
            request(target.port, "POST", f"nonsense{next(bad_queries)}", b"x\n" * 100)

    return lambda: target.in_parallel(8, send)


# Joins.


@attack
def join_flood(target: Target) -> Callable[[], object]:
    """Hundreds of joins and leaves a second, in the very room of the honest clients."""
    numbers = iter(range(10**9))
    leave = json.dumps(["3", "4", "room:calm", "phx_leave", {}])

    def send() -> None:
        tab = Tab(target.port)
        try:
            for _ in range(25):
                tab.join("room:calm", {"user": f"flood {next(numbers)}"})
                tab.send(leave)
                while b"phx_close" not in tab.read():
                    pass
        finally:
            tab.close()

    return lambda: target.in_parallel(8, send)


@attack
def connection_flood(target: Target) -> Callable[[], object]:
    """Clients that connect, join and vanish."""
    numbers = iter(range(10**9))

    def send() -> None:
        tab = Tab(target.port)
        tab.join("room:flood", {"user": f"flood {next(numbers)}"})
        tab.close()

    return lambda: target.in_parallel(16, send)


# Half-open clients.


@attack
def unread_broadcasts(target: Target) -> Callable[[], object]:
    """Forty clients never read, and half of them do not even acknowledge, what a busy room says."""
    shout = json.dumps(["3", "4", "room:busy", "shout", {"text": "x" * 16_000}])

    def send() -> None:
        deaf = [Tab(target.port, buffer=4096) for _ in range(40)]
        for number, tab in enumerate(deaf):
            tab.join("room:busy", {"user": f"deaf {number}"})
        for tab in deaf[::2]:
            stop_answering(tab.sock)
        loud = Tab(target.port)
        loud.join("room:busy", {"user": "loud"})
        reading = threading.Thread(target=drain_quietly, args=[loud])
        reading.start()
        while target.goes_on():
            loud.send(shout)
            target.report["shouts"] += 1
            time.sleep(0.005)
        for tab in deaf:
            tab.close()
        loud.sock.shutdown(socket.SHUT_RDWR)
        reading.join()
        loud.close()

    return send


def drain_quietly(tab: Tab) -> None:
    with contextlib.suppress(OSError):
        tab.drain()


@attack
def unread_replies(target: Target) -> Callable[[], object]:
    """Clients that ask for large replies as fast as they are let, and read none."""
    ask = frame(json.dumps(["3", "4", "room:deaf", "echo", {"text": "x" * 60_000}]).encode())

    def send() -> None:
        tab = Tab(target.port, buffer=4096)
        tab.join("room:deaf", {"user": "deaf"})
        tab.sock.settimeout(1.0)
        try:
            for _ in range(500):
                tab.sock.sendall(ask)
        finally:
            tab.close()

    return lambda: target.in_parallel(10, send)


@attack
def slow_requests(target: Target) -> Callable[[], object]:
    """Bodies and upgrades that come a byte at a time, and never to their end."""
    length = f"content-length: {MIB - 1}"
    token = session(target.port)

    def begin(where: str, *headers: str) -> bytes:
        lines = [f"POST {where} HTTP/1.1", f"Host: 127.0.0.1:{target.port}", *headers]
        return "\r\n".join([*lines, "", ""]).encode()

    genuine = begin(f"/socket/longpoll?vsn=2.0.0&token={token}", length)
    beginnings = [
        genuine,
        begin("/socket/longpoll?vsn=2.0.0&token=forged", length),
        upgrade(target.port)[:-2],
        upgrade(target.port) + frame(HEARTBEAT.encode())[:-1],
    ]

    def hold() -> None:
        held = [open_link(("127.0.0.1", target.port)) for _ in range(200)]
        for number, sock in enumerate(held):
            send_all(sock, beginnings[number % len(beginnings)])
        for sock in held[: len(held) // 4]:
            stop_answering(sock)
        while target.goes_on():
            for number, sock in enumerate(held):
                if number % len(beginnings) < 2:
                    send_all(sock, b"x")
            time.sleep(0.1)
        for sock in held:
            sock.close()

    return hold


def stop_answering(sock: socket.socket) -> None:
    """Let the kernel drop everything that comes for the socket, as if its host had gone."""
    drop = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF: return 0 bytes of the packet
    program = ctypes.create_string_buffer(drop)
    option = struct.pack("HL", 1, ctypes.addressof(program))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, option)


# Nothing.


@attack
def harmless(target: Target) -> Callable[[], object]:
    """As much work for this machine as an attacker makes, and none for the servers."""

    def spin() -> None:
        while target.goes_on():
            sum(range(1000))

    return spin


def main() -> None:
    os.nice(5)  # a real attacker does not compete for the processors of the server
    target = Target(**json.loads(sys.argv[2]))
    act = ATTACKS[sys.argv[1]](target)
    print("ready", flush=True)
    if not sys.stdin.readline():
        return
    target.began = time.monotonic()
    act()
    target.report["done"] += 1
    print(json.dumps(target.report), flush=True)


if __name__ == "__main__":
    main()
