"""The network between the demo's servers: it can be cut in two, and be healed.

The servers know each other by Unix sockets. But what listens there is not the server: it is a
relay of the supervisor, which passes everything on. Through a cut it passes nothing on, not even
the end of a connection: as in a real partition, all that a server notices of it is silence.
"""

import asyncio
import contextlib
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

#: Seconds after which a dial through a cut is dropped; the servers give up no later.
DIAL_TIMEOUT = 3.0
#: Ends the name of the socket at which a server answers requests, beside that of its node.
ANSWERS = "-answers"
CHUNK = 65536


class Network:
    """Relays between servers.

    Args:
        directory: For the sockets.
        names: The servers.
        identify: Tells which server is the process of a number, so that a relay knows who dials.
    """

    def __init__(
        self, directory: Path, names: Iterable[str], identify: Callable[[int], str | None]
    ) -> None:
        self.names = [*names]
        self._directory = directory
        self._identify = identify
        #: Those on one side of the cut; empty while there is none.
        self._apart: set[str] = set()
        self._healed = asyncio.Event()
        self._relays: dict[str, asyncio.Server] = {}
        self._carrying: set[asyncio.Task[None]] = set()

    def settings(self, name: str) -> dict[str, str]:
        """What a node has to be told to find the others, as environment variables."""
        others = [f"unix:{self._directory / other}" for other in self.names if other != name]
        return {
            "ADSUM_SIBLINGS": "0",
            "ADSUM_LISTEN": f"unix:{self._inside(name)}",
            "ADSUM_ADVERTISE": f"unix:{self._directory / name}",
            "ADSUM_PEERS": ",".join(others),
        }

    def answers(self, name: str) -> dict[str, str]:
        """What a server has to be told to answer requests, as environment variables."""
        return {"DEMO_ANSWERS": str(self._directory / f"{name}{ANSWERS}")}

    async def connect(self, name: str) -> None:
        """Relay to a server from now on: it listens, for nodes and for requests."""
        for place in (name, f"{name}{ANSWERS}"):
            if place not in self._relays:
                self._relays[place] = await asyncio.start_unix_server(
                    partial(self._accept, place), self._directory / place
                )

    def split(self, side: set[str]) -> None:
        """Let nothing pass any more between these and all others."""
        self._apart = side
        self._healed.clear()

    def heal(self) -> None:
        """Let everything pass; what waited goes on its way."""
        self._apart = set()
        self._healed.set()

    def joins(self, one: str, other: str) -> bool:
        """Whether there is a way from one server, or one of its sockets, to the other."""
        sides = [name.removesuffix(ANSWERS) in self._apart for name in (one, other)]
        return sides[0] == sides[1]

    def close(self) -> None:
        """End all relays."""
        for relay in self._relays.values():
            relay.close()
        for task in self._carrying:
            task.cancel()

    def _inside(self, name: str) -> Path:
        """Where the server itself listens; only the relay goes there."""
        return self._directory / f"{name}.inside"

    def _accept(self, to: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        by = self._identify(pid_of_peer(writer))
        if by is None:
            writer.close()
            return
        task = asyncio.create_task(self._relay(by, to, reader, writer))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)

    async def _relay(
        self, by: str, to: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            async with asyncio.timeout(DIAL_TIMEOUT):
                await self._wait_for_a_way(by, to)
            far_reader, far_writer = await asyncio.open_unix_connection(self._inside(to))
        except OSError:  # a TimeoutError is one, too
            self._refuse_if_dead(to)
            writer.close()
            return
        await asyncio.gather(
            self._pass_on(reader, far_writer, by, to), self._pass_on(far_reader, writer, by, to)
        )

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, one: str, other: str
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                await self._wait_for_a_way(one, other)
                sink.write(data)
                await sink.drain()
        await self._wait_for_a_way(one, other)
        for name in (one, other):
            self._refuse_if_dead(name)
        sink.close()

    async def _wait_for_a_way(self, one: str, other: str) -> None:
        while not self.joins(one, other):
            await self._healed.wait()

    def _refuse_if_dead(self, name: str) -> None:
        """Listen no more for a process that is gone.

        The kernel refuses what is dialled to a dead process, and that is how servers tell a crash
        from silence. A relay must not hide it; so this comes before anybody hears of the end.
        """
        if name in self._relays and not is_listening(self._inside(name)):
            self._relays.pop(name).close()


def is_listening(path: Path) -> bool:
    """Whether a process listens at a Unix socket, be it too busy to accept."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True


def pid_of_peer(writer: asyncio.StreamWriter) -> int:
    """Which process is at the other end of a Unix socket, as the kernel knows it."""
    connection = writer.get_extra_info("socket")
    if sys.platform == "darwin":
        return int(connection.getsockopt(0, 2))  # SOL_LOCAL, LOCAL_PEERPID
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("3i", credentials)[0])
