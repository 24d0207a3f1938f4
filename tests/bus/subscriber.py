"""A process with one client that subscribes, until it is killed: URL, then subjects."""

import asyncio
import sys

from adsum.bus.carrierurl import make_client

from .recorder import Recorder


async def main(url: str, *subjects: str) -> None:
    client = make_client(url, Recorder(), "subscriber")
    await client.connect(subjects)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
