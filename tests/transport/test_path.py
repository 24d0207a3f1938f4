"""The bytes of a link as a stranger on its path sees them: readable without TLS alone."""

import asyncio
from pathlib import Path

import pytest

from adsum.transport.tls import TLS
from tests.support.transports import Recorder, World, in_loop
from tests.support.waiting import until

MARKER = b"a meta of ann"


async def seen_on_the_path(world: World) -> bytes:
    """The bytes from a dialler to an acceptor that it reaches through a stranger."""
    dialler, acceptor = Recorder(), Recorder()
    host, port = (await world.listening("acceptor", acceptor)).split(":")
    seen, pipes = bytearray(), list[asyncio.Task[None]]()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            seen.extend(data)
            writer.write(data)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        pipes.extend(
            asyncio.create_task(pipe(*ends))
            for ends in ((reader, far_writer), (far_reader, writer))
        )

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    there = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await world.transport("dialler", dialler).dial(there)
    dialler.link.send(MARKER)
    await until(lambda: acceptor.payloads == [MARKER])
    await world.close()
    server.close()
    await asyncio.gather(*pipes)
    return bytes(seen)


@pytest.mark.parametrize("kind", ["tcp", "tls"])
@in_loop
async def test_eavesdropper_reads_frames_without_tls_only(
    short_path: Path, tls: TLS, kind: str
) -> None:
    world = World(kind, short_path, tls if kind == "tls" else None)
    assert (MARKER in await seen_on_the_path(world)) is (kind == "tcp")
