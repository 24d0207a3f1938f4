"""The page of each example works, with the real phoenix.js."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from adsum.cli import phoenixjs
from tests.docs.programs import Environment, free_port, serving
from tests.docs.sites import django_cookie, website

pytestmark = pytest.mark.processes


@pytest.mark.parametrize(
    ("app", "page"),
    [
        (
            "fastapi_channels:app",
            {
                "name": "ann",
                "steps": [
                    ["see", "status", "served by"],
                    ["see", "people", "ann: here"],
                    ["type", "mood", "glad"],
                    ["see", "people", "ann: glad"],
                    ["type", "say", "hi"],
                    ["see", "log", "ann: hi"],
                    ["click", "leave"],  # it is disconnected, and comes back by itself
                    ["see", "people", "ann: here"],
                ],
            },
        ),
        (
            "starlette_channels:app",
            {
                "search": "?room=7&user=ann",
                "steps": [["see", "rooms", "7 (1)"], ["see", "people", "ann: here"]],
            },
        ),
        (
            "django_app:application",
            {
                "name": "ann",
                "steps": [
                    ["see", "people", "ann"],
                    ["type", "text", "hi"],
                    ["see", "log", "ann: hi"],
                ],
            },
        ),
        (
            "aiohttp_app.py",
            {
                "search": "?user=ann",
                "steps": [
                    ["see", "people", "ann"],
                    ["type", "text", "hi"],
                    ["see", "log", "ann: hi"],
                ],
            },
        ),
    ],
    ids=["fastapi", "starlette", "django", "aiohttp"],
)
def test_the_page_of_an_example_works(
    environment: Environment, app: str, page: dict[str, Any]
) -> None:
    try:
        phoenixjs.install()
    except phoenixjs.InstallError as error:
        pytest.skip(str(error))

    async def main() -> None:
        port = free_port()
        command = ["-m", "uvicorn", app, "--port", str(port), "--log-level", "warning"]
        if app == "aiohttp_app.py":
            environment["PORT"], command = str(port), [app]
        async with serving(environment, *command), website(port, "/"):
            cookies = await django_cookie(port, "ann") if "django" in app else {}
            await run_page({**page, **cookies, "port": port})

    asyncio.run(main())


async def run_page(page: dict[str, Any]) -> None:
    """Let the page of an example do and see what it should, with the real phoenix.js."""
    driver = Path(__file__).with_name("page.mjs")
    process = await asyncio.create_subprocess_exec(
        phoenixjs.node_path(), driver, json.dumps(page), stderr=subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, errors.decode()
