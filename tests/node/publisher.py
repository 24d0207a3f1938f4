"""A process that starts a node, publishes a message, stops, and prints how many nodes missed it."""

import asyncio
import json
import sys

import adsum


async def main() -> None:
    async with adsum.Node(**json.loads(sys.argv[1])) as node:
        print(await adsum.PubSub(node).publish("jobs", {"from": sys.argv[2]}))


asyncio.run(main())
