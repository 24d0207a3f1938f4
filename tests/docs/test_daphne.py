"""Daphne, which runs no lifespan: the log names that and the remedy, and the remedy works."""

import asyncio
from pathlib import Path

import pytest

from tests.support.markdown_pages import ROOT, blocks
from tests.support.ports import free_port
from tests.support.waiting import DEADLINE

from .channel_client import channel_client
from .example_clients import status_of, website
from .example_processes import Environment, program
from .readme_app import write_application

pytestmark = pytest.mark.processes


def daphne(app: str, port: int) -> list[str]:
    return ["-m", "daphne", "-b", "127.0.0.1", "-p", str(port), app]


def test_node_that_was_never_started_is_logged_once_with_the_remedy(
    environment: Environment, tmp_path: Path
) -> None:
    write_application(tmp_path)

    async def main() -> None:
        port = free_port()
        async with program(environment, *daphne("app:app", port), directory=tmp_path) as process:
            async with website(port, "/"):
                for _ in range(3):
                    assert await status_of(channel_client(port, {"user": "ann"})) == 403
            process.terminate()
            output = (await asyncio.wait_for(process.stdout.read(), DEADLINE)).decode()
            assert output.count("the node is not running: it was never started") == 1
            assert output.count("Daphne runs no lifespan") == 1

    asyncio.run(main())


def test_node_that_starts_with_the_first_request_is_in_the_cluster(
    environment: Environment, tmp_path: Path
) -> None:
    write_application(tmp_path)
    page = ROOT / "docs/deployment.md"
    (wrapper,) = (block.text for block in blocks(page) if "class StartingNode" in block.text)
    with (tmp_path / "app.py").open("a") as file:
        file.write(f"\n\n{wrapper}\n\napplication = StartingNode(app, node)\n")

    async def main() -> None:
        one, other = free_port(), free_port()
        async with (
            program(environment, *daphne("app:application", one), directory=tmp_path),
            program(environment, *daphne("app:application", other), directory=tmp_path),
            website(one, "/"),
            website(other, "/"),
            channel_client(one, {"user": "ann"}) as ann,
            channel_client(other, {"user": "bob"}) as bob,
        ):
            for each in (ann, bob):
                await each.join("room:1")
            for each in (ann, bob):
                await each.sees("room:1", "ann", "bob")

    asyncio.run(main())
