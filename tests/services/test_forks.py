"""Services in a forked child: those of the parent are inert there, and a new run begins afresh."""

import asyncio
from typing import Any

import adsum
from tests.support.forked_child import in_child
from tests.support.nodes import run

from .crew import NAME


def test_child_neither_uses_nor_ends_registrations_of_its_parent() -> None:
    node = adsum.Node(siblings=False)
    services = adsum.Services(node)

    async def again() -> list[str]:
        async with node:
            services.register(NAME, "child:80")
            return [instance.address for instance in services.instances(NAME)]

    async def main() -> None:
        async with node:
            registration, watch = services.register(NAME, "parent:80"), services.watch(NAME)

            def child() -> Any:
                registration.withdraw()
                node.begin_stop()
                ended = [registration.active, registration.instance is not None, not watch.closed]
                return [*ended, asyncio.run(again())]

            assert in_child(child) == [False, False, False, ["child:80"]]
            await asyncio.sleep(0)
            assert registration.active
            assert services.resolve(NAME).address == "parent:80"

    run(main())
