"""The links between the nodes of a test, which it can cut: relays of Unix sockets.

What a node advertises is not where it listens but a relay here, so everything between two nodes
passes it. Through a cut it passes nothing on, not even the end of a connection: all that a node
notices of it is silence, as in a real partition.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

CHUNK = 65536
#: Seconds after which a dial through a cut is dropped; nodes give up no later.
DIAL_TIMEOUT = 3.0


class CuttableLinks:
    """See the module.

    Args:
        directory: For the sockets; its path must be short.
        names: Of the nodes.
        name_of: Which node a process is, by its id.
    """

    def __init__(
        self, directory: Path, names: Iterable[str], name_of: Callable[[int], str | None]
    ) -> None:
        self.names = list(names)
        self._directory = directory
        self._name_of = name_of
        # Those on one side of the cut; empty while there is none.
        self._side: frozenset[str] = frozenset()
        self._healed = asyncio.Event()
        self._relays: dict[str, asyncio.Server] = {}
        self._carrying: set[asyncio.Task[None]] = set()

    def settings(self, name: str) -> dict[str, str]:
        """What a node has to be told, as environment variables."""
        others = [f"unix:{self._directory / other}" for other in self.names if other != name]
        return {
            "ADSUM_NAME": name,
            "ADSUM_SIBLINGS": "0",
            "ADSUM_LISTEN": f"unix:{self._inside(name)}",
            "ADSUM_ADVERTISE": f"unix:{self._directory / name}",
            "ADSUM_PEERS": ",".join(others),
        }

    @property
    def cut(self) -> bool:
        return bool(self._side)

    def split(self, side: Iterable[str]) -> None:
        """Let nothing pass any more between these nodes and all others."""
        self._side = frozenset(side)
        self._healed.clear()

    def heal(self) -> None:
        """Let everything pass; what waited goes on its way."""
        self._side = frozenset()
        self._healed.set()

    async def open(self, name: str) -> None:
        """Relay to a node, which listens."""
        self._relays[name] = await asyncio.start_unix_server(
            lambda reader, writer: self._accept(name, reader, writer), self._directory / name
        )

    def close(self, name: str) -> None:
        """Relay to a node no more: the kernel refuses at once what is dialled to a dead process."""
        relay = self._relays.pop(name, None)
        if relay is not None:
            relay.close()
            (self._directory / name).unlink(missing_ok=True)

    async def stop(self) -> None:
        for name in list(self._relays):
            self.close(name)
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)

    def _inside(self, name: str) -> Path:
        """Where the node itself listens; only the relay goes there."""
        return self._directory / f"{name}.inside"

    def _accept(self, to: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialler = self._name_of(_pid_of_peer(writer))
        if dialler is None:
            writer.close()
            return
        task = asyncio.create_task(self._relay((dialler, to), reader, writer))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)

    async def _relay(
        self, ends: tuple[str, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(writer.close)
            try:
                async with asyncio.timeout(DIAL_TIMEOUT):
                    await self._wait_for_a_way(ends)
                far = await asyncio.open_unix_connection(self._inside(ends[1]))
            except OSError:  # a TimeoutError is one, too
                return
            stack.callback(far[1].close)
            there = asyncio.create_task(self._pass_on(ends, reader, far[1]))
            back = asyncio.create_task(self._pass_on(ends, far[0], writer))
            try:
                await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
            finally:
                there.cancel()
                back.cancel()

    async def _pass_on(
        self, ends: tuple[str, str], source: asyncio.StreamReader, sink: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                await self._wait_for_a_way(ends)
                sink.write(data)
                await sink.drain()
        await self._wait_for_a_way(ends)

    async def _wait_for_a_way(self, ends: tuple[str, str]) -> None:
        while (ends[0] in self._side) != (ends[1] in self._side):
            await self._healed.wait()


def _pid_of_peer(writer: asyncio.StreamWriter) -> int:
    """Which process is at the other end of a Unix socket, as the kernel knows it."""
    connection = writer.get_extra_info("socket")
    if os.uname().sysname == "Darwin":
        return int(connection.getsockopt(0, 2))  # SOL_LOCAL, LOCAL_PEERPID
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("3i", credentials)[0])
