"""The pages of the examples, of the documentation's first example too, in a real browser.

Two users open each page. Each sees both, what the other one says and does, and that it is gone.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.ports import free_port

from .browser_window import Window, browser, needs_chromium
from .example_clients import website
from .example_processes import Environment, server, serving
from .readme_app import command, write_application

pytestmark = [pytest.mark.processes, needs_chromium]

Scene = Callable[[Window, Window], Awaitable[None]]


async def fastapi_channels(ann: Window, bob: Window) -> None:
    for window in (ann, bob):
        await window.sees("status", "served by")
        await window.sees("people", "ann: here", "bob: here")
    await ann.types("mood", "glad")
    await ann.types("say", "hi")
    for window in (ann, bob):
        await window.sees("people", "ann: glad")
        await window.sees("log", "ann: hi")
    await ann.clicks("leave")  # it is disconnected, and comes back by itself
    for window in (ann, bob):
        await window.sees("people", "ann: here")


async def starlette_channels(ann: Window, bob: Window) -> None:
    for window in (ann, bob):
        await window.sees("rooms", "7 (2)")
        await window.sees("people", "ann: here", "bob: here")
    await ann.page.locator("#text").press_sequentially("hello")
    await bob.sees("people", "ann: typing")
    await ann.page.locator("#text").press("Enter")
    await bob.sees("log", "ann: hello")
    await bob.sees("people", "ann: here")
    await bob.page.locator("#log li").click()  # mutes ann
    await bob.sees("log", "ann: hello (muted)")
    await ann.types("text", "psst")
    await bob.types("text", "and you?")
    await ann.sees("log", "bob: and you?")
    await bob.misses("log", "psst")


async def django_app(ann: Window, bob: Window) -> None:
    for window, user in ((ann, "ann"), (bob, "bob")):
        await window.page.locator("[name=user]").fill(user)
        await window.page.get_by_role("button", name="Sign in").click()
    for window in (ann, bob):
        await window.sees("people", "ann", "bob")
    await ann.types("text", "hi")
    await bob.page.locator("[name=text]").fill("tea")
    await bob.page.get_by_role("button", name="Post").click()
    for window in (ann, bob):
        await window.sees("log", "ann: hi", "notice by bob: tea")


async def aiohttp_app(ann: Window, bob: Window) -> None:
    for window in (ann, bob):
        await window.sees("people", "ann", "bob")
    await ann.types("text", "hi")
    for window in (ann, bob):
        await window.sees("log", "ann: hi")


async def fastapi_app(ann: Window, bob: Window) -> None:
    for window in (ann, bob):
        await window.sees("people", "ann: here", "bob: here")
    await ann.types("mood", "glad")
    for window in (ann, bob):
        await window.sees("people", "ann: glad")


async def readme(ann: Window, bob: Window) -> None:
    for window in (ann, bob):
        await window.sees("people", "ann", "bob")
    await ann.clicks("wave")
    for window in (ann, bob):
        await window.sees("log", "ann waves")


#: Each example, what follows the host in the address of a user's window, and the scene.
EXAMPLES = [
    ("fastapi_channels:app", "", fastapi_channels),
    ("starlette_channels:app", "?room=7&user={user}", starlette_channels),
    ("django_app:application", "", django_app),
    ("aiohttp_app.py", "?user={user}", aiohttp_app),
    ("fastapi_app:app", "", fastapi_app),
]


@pytest.mark.parametrize(
    ("example", "address", "scene"), EXAMPLES, ids=[scene.__name__ for *_, scene in EXAMPLES]
)
def test_page_of_an_example_works_in_a_browser(
    environment: Environment, example: str, address: str, scene: Scene
) -> None:
    async def main() -> None:
        async with running(environment, example) as port, website(port, "/"):
            await in_two_windows(f"http://127.0.0.1:{port}/{address}", scene)

    asyncio.run(main())


def test_page_of_the_readme_works_in_a_browser(environment: Environment, tmp_path: Path) -> None:
    write_application(tmp_path)

    async def main() -> None:
        port = free_port()
        run = ["-m", *command(), "--port", str(port), "--log-level", "warning"]
        async with serving(environment, *run, directory=tmp_path), website(port, "/"):
            await in_two_windows(f"http://127.0.0.1:{port}/?user={{user}}", readme)

    asyncio.run(main())


@asynccontextmanager
async def running(environment: Environment, example: str) -> AsyncIterator[int]:
    """An example, as its first lines say that it is started, at a port."""
    if not example.endswith(".py"):
        async with server(environment, example) as port:
            yield port
    else:
        port = free_port()
        async with serving({**environment, "PORT": str(port)}, example):
            yield port


async def in_two_windows(url: str, scene: Scene) -> None:
    """Let a scene play in the windows of Ann and Bob; then Bob closes his, and Ann sees it."""
    async with browser() as open_window, open_window(url.format(user="ann"), "ann") as ann:
        async with open_window(url.format(user="bob"), "bob") as bob:
            await scene(ann, bob)
            await ann.sees("people", "bob")
        await ann.misses("people", "bob")
        await ann.sees("people", "ann")
