"""An HTTP server in the event loop of a test: it records requests, and may drop them."""

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self


class Received(NamedTuple):
    method: str
    path: str
    host: str
    body: bytes


class RawServer:
    """Answers with its name and the path; see the attributes for the exceptions.

    Args:
        name: Its name.
        path: The path of a Unix socket, instead of a port.
        tls: Its side of TLS.
    """

    def __init__(
        self, name: str, path: Path | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.name = name
        self.received: list[Received] = []
        #: Whether it closes the connection after a request, without an answer.
        self.drops = False
        #: Whether it closes the connection after the first byte of a body.
        self.breaks = False
        #: The status of each answer.
        self.status = 200
        #: The header `Location` of the next answer, which then redirects.
        self.location = ""
        #: Set to end the body of answers; they begin at once.
        self.finished = asyncio.Event()
        self.finished.set()
        self._path = path
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def address(self) -> str:
        if self._path is not None:
            return f"unix:{self._path}"
        assert self._server is not None
        return (
            f"http{'s' if self._tls else ''}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        )

    async def __aenter__(self) -> Self:
        if self._path is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        else:
            self._server = await asyncio.start_unix_server(self._serve, self._path)
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Refuse connections from now on, and close the present ones."""
        assert self._server is not None
        self.finished.set()
        self._server.close()
        for writer in self._writers:
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self.received.append(await _receive(reader))
                if self.drops:
                    break
                await self._answer(writer)
                if self.breaks:
                    break
        self._writers.discard(writer)
        writer.close()

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        body = f"{self.name} {self.received[-1].path}".encode()
        location, self.location = self.location, ""
        moved = f"Location: {location}\r\nSet-Cookie: a=b; Path=/\r\n" if location else ""
        head = f"HTTP/1.1 {302 if moved else self.status} Status\r\n{moved}"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body[:1])
        if self.breaks:
            return
        await self.finished.wait()
        writer.write(body[1:])
        await writer.drain()


async def _receive(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in head[1:])}
    body = b""
    if "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    elif headers.get("transfer-encoding") == "chunked":
        body = await reader.readuntil(b"0\r\n\r\n")
    return Received(method, path, headers["host"], body)
