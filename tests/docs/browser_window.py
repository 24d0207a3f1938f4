"""Pages of the documentation in windows of a real browser, where any complaint fails the test.

A page counts as working if it shows what it should and the browser has nothing to say: no uncaught
error, no rejected promise, no error or warning in the console, no file that is missing. A DOM made
for tests would be kinder than that: in a browser `status` is `window.status`, not an element.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import pytest
from playwright.async_api import Browser, ConsoleMessage, Dialog, Page, async_playwright, expect

from tests.support.chromium import CHROMIUM, FLAGS
from tests.support.phoenixjs_library import phoenix_directory
from tests.support.waiting import DEADLINE

#: Milliseconds within which a page shows what it should.
PATIENCE = 1000 * DEADLINE

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs the package chromium")


class Window:
    """One page, opened in a browser profile of its own.

    Args:
        page: The page.
        name: The answer to what the page prompts for.
    """

    def __init__(self, page: Page, name: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self._name = name
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", self._answer)
        page.on("console", self._hear)

    async def sees(self, id: str, *texts: str) -> None:
        """Wait until an element shows each of the texts."""
        for text in texts:
            await expect(self.page.locator(f"#{id}")).to_contain_text(text, timeout=PATIENCE)

    async def misses(self, id: str, text: str) -> None:
        """Wait until an element does not show a text."""
        await expect(self.page.locator(f"#{id}")).not_to_contain_text(text, timeout=PATIENCE)

    async def types(self, id: str, text: str) -> None:
        """Type a text, key by key, and press Enter."""
        field = self.page.locator(f"#{id}")
        await field.fill("")
        await field.press_sequentially(text)
        await field.press("Enter")

    async def clicks(self, id: str) -> None:
        await self.page.locator(f"#{id}").click()

    async def _answer(self, dialog: Dialog) -> None:
        if dialog.type == "prompt":
            await dialog.accept(self._name)
        else:
            self.complaints.append(f"{dialog.type}: {dialog.message}")
            await dialog.dismiss()

    def _hear(self, said: ConsoleMessage) -> None:
        # A site need not have the icon, which browsers ask for unbidden.
        if said.type in ("error", "warning") and "/favicon.ico" not in said.location["url"]:
            self.complaints.append(said.text)


OpenWindow = Callable[[str, str], AbstractAsyncContextManager[Window]]


@asynccontextmanager
async def browser() -> AsyncIterator[OpenWindow]:
    """A browser: a function that opens the page at an address, for a name.

    The test is skipped where phoenix.js, which the pages load, cannot be had.
    """
    phoenix_directory()
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield partial(_window, chromium)
        finally:
            await chromium.close()


@asynccontextmanager
async def _window(chromium: Browser, url: str, name: str) -> AsyncIterator[Window]:
    window = Window(await chromium.new_page(), name)
    await window.page.goto(url)
    try:
        yield window
    except AssertionError as error:
        error.add_note(f"{name}'s browser complained of {window.complaints}")
        raise
    await window.page.close()
    assert window.complaints == []
