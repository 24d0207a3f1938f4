"""A service on several processes, and a client that asks the live ones.

    python services.py serve            in as many terminals as you like
    python services.py ask              in one more

End a server by Ctrl-C: it withdraws its address first, so no request fails. End one by `kill -9`,
or suspend it by `kill -STOP`: the client asks the others.
"""

import asyncio
import contextlib
import signal
import sys

import adsum

# Servers and clients are started by different command lines, so the cluster needs a name.
node = adsum.Node(cluster="services-example")
services = adsum.Services(node, rest=1.0)  # a failed server is skipped for a second

#: Seconds for which a withdrawn server still accepts requests of clients that resolved it before.
DRAIN = 0.5
#: Seconds after which a client asks another server.
PATIENCE = 0.5


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one line."""
    name = (await reader.readline()).decode().strip()
    writer.write(f"hello {name}, from {node.name}\n".encode())
    await writer.drain()
    writer.close()


async def healthy() -> bool:
    """Whether this process can answer; yours asks its database."""
    return True


async def serve() -> None:
    """Serve until a signal."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server, node:
        async with services.register("hello", f"{host}:{port}", check=healthy):
            print(f"{node.name} serves on port {port}", flush=True)
            await stopped.wait()
        await asyncio.sleep(DRAIN)


async def ask(instance: adsum.Instance) -> str:
    """Ask one server."""
    host, _, port = instance.address.rpartition(":")
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(b"ann\n")
            line = await reader.readline()
        finally:
            writer.close()
    if not line:
        raise ConnectionResetError("the server closed the connection without an answer")
    return line.decode().strip()


async def keep_asking() -> None:
    """Ask ten times a second, and print the answers."""
    async with node:
        await services.wait_for("hello", timeout=30)
        while True:
            # Greeting twice does no harm, so a request that was sent may be repeated.
            try:
                print(await services.call("hello", ask, idempotent=True), flush=True)
            except (OSError, adsum.NoInstanceError) as error:
                print("failed:", error, flush=True)
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    role = {"serve": serve, "ask": keep_asking}.get("".join(sys.argv[1:]))
    if role is None:
        sys.exit("usage: services.py serve|ask")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(role())
