"""Clients that are phoenix.js, unmodified, in tabs of a headless Chromium, one tab for each."""

from typing import Any

import pytest

try:
    from playwright.async_api import Browser, Page, Playwright, async_playwright
except ImportError:
    pytest.skip("playwright is not installed", allow_module_level=True)

from tests.support.chromium import CHROMIUM, FLAGS

#: What a browser says of a connection that fails; phoenix.js tries again.
_FAILED = ("WebSocket connection to", "Failed to load resource", "Access to XMLHttpRequest")


class ChromiumClients:
    """See the module, and `Clients`.

    Args:
        host: What the pages call the host that they come from.

    Attributes:
        complaints: What the console said of anything but failed connections.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.complaints: list[str] = []
        self._host = host
        self._pages: dict[str, Page] = {}
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None

    async def start(self) -> None:
        if CHROMIUM is None:
            pytest.skip("there is no Chromium: install the package chromium")
        self._playwright = await async_playwright().start()
        self._browser = await self._playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)

    async def stop(self) -> None:
        if self._browser is not None:
            await self._browser.close()
        if self._playwright is not None:
            await self._playwright.stop()

    async def ask(self, command: str, **how: Any) -> Any:
        """See `Clients`; a client that connects gets a tab, on a page of the server."""
        client = how["client"]
        if command == "connect" and client not in self._pages:
            port = how["url"].split(":")[2].partition("/")[0]
            self._pages[client] = await self._open(f"http://{self._host}:{port}/page")
        page = self._pages[client]
        return await page.evaluate("([name, how]) => commands[name](how)", [command, how])

    async def look(self) -> dict[str, Any]:
        """See `Clients`."""
        looks: dict[str, Any] = {}
        for page in self._pages.values():
            looks |= await page.evaluate("() => commands.look()")
        return looks

    async def close(self, client: str) -> None:
        """Close the tab of a client, as a user does."""
        await self._pages.pop(client).close(run_before_unload=True)

    async def _open(self, url: str) -> Page:
        assert self._browser is not None
        page = await self._browser.new_page()
        page.on("console", lambda message: self._heard(message.type, message.text))
        page.on("pageerror", lambda error: self._heard("error", str(error)))
        await page.goto(url)
        await page.wait_for_function("window.commands")
        return page

    def _heard(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not text.startswith(_FAILED):
            self.complaints.append(text)
