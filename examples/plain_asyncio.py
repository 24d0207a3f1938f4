"""Workers that are alive, without a web framework: presence in plain asyncio.

    python plain_asyncio.py worker      in as many terminals as you like
    python plain_asyncio.py ask         in one more

Each worker serves a TCP port and tracks itself on the topic `workers`. The asker picks a live one
for every question. End workers by Ctrl-C, or by `kill -9`: it does not ask them again. Services
that retry, balance and drain need no code of this kind: see services.py.
"""

import asyncio
import contextlib
import os
import random
import signal
import sys

import adsum

TOPIC = "workers"

# The workers and the asker are started by different command lines, so the cluster needs a name.
node = adsum.Node(cluster="plain-asyncio-example")
presence = adsum.Presence(node)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What this service does: tell the time."""
    writer.write(f"{asyncio.get_running_loop().time():.3f} by process {os.getpid()}\n".encode())
    await writer.drain()
    writer.close()


async def work() -> None:
    """Serve, and be found, until told to end."""
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server, node:
        with presence.track(TOPIC, node.name, {"host": host, "port": port, "pid": os.getpid()}):
            print(f"serving on {host}:{port}", flush=True)
            await ended.wait()


async def ask() -> None:
    """Ask a live worker, once a second, and say who comes and goes."""
    async with node:
        watcher = asyncio.create_task(report())
        while not watcher.done():
            services = presence.list(TOPIC)
            if services:
                meta = random.choice(list(services.values()))["metas"][0]
                try:
                    reader, writer = await asyncio.open_connection(meta["host"], meta["port"])
                    print("it is", (await reader.readline()).decode().strip(), flush=True)
                    writer.close()
                except OSError as error:
                    print("a worker has just died:", error, flush=True)
            await asyncio.sleep(1)


async def report() -> None:
    """Say who comes and goes."""
    async for diff in presence.watch(TOPIC):
        for name in diff.joins:
            print("joined:", name, flush=True)
        for name in diff.leaves:
            print("left:", name, flush=True)


if __name__ == "__main__":
    role = {"worker": work, "ask": ask}.get("".join(sys.argv[1:]))
    if role is None:
        sys.exit("usage: plain_asyncio.py worker|ask")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(role())
