"""The documentation site builds without a warning, is whole, loads nothing, and fits a phone."""

import asyncio
import re
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from playwright.async_api import async_playwright

from tests.docs.browser_window import needs_chromium
from tests.docs.html_pages import References, build, references
from tests.docs.reference import PUBLIC
from tests.support.chromium import CHROMIUM, FLAGS

pytestmark = pytest.mark.processes
KINDS = ["Tutorial", "How-to guides", "Reference", "Explanation"]
#: Width and height of a phone and of a desktop in CSS pixels.
WINDOWS = [(390, 844), (1280, 800)]
#: Elements that are wider than they are shown. Code and tables may be: they scroll in themselves.
#: The theme lets the whole text scroll, so the width of the document alone would show nothing.
CUT = """() => [...document.querySelectorAll("*:not(pre, .table-wrapper)")]
    .filter(e => getComputedStyle(e).overflowX !== "visible" || e === document.scrollingElement)
    .filter(e => e.clientWidth > 0 && e.scrollWidth > e.clientWidth + 1)
    .map(e => `${e.tagName} ${e.className}: ${e.scrollWidth} px`)"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site; building fails for any warning."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    ended = build(folder)
    assert (ended.returncode, ended.stderr) == (0, "")
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, References]:
    return {page: references(page) for page in sorted(site.rglob("*.html"))}


def test_front_page_shows_four_kinds_of_pages(site: Path) -> None:
    text = (site / "index.html").read_text()
    assert re.findall(r'class="caption-text">([^<]+)<', text) == KINDS


def test_link_leads_to_a_page_and_an_anchor_that_exist(pages: dict[Path, References]) -> None:
    for page, found in pages.items():
        for link in found.links:
            path, anchor = urldefrag(link)
            if urlsplit(link).scheme:
                continue
            target = (page.parent / unquote(path)).resolve() if path else page
            assert target.is_file(), f"{page.name} links to {link}"
            if anchor:
                assert unquote(anchor) in pages[target].anchors, f"{page.name} links to {link}"


def test_page_loads_files_of_the_site_alone(pages: dict[Path, References]) -> None:
    for page, found in pages.items():
        for address in found.loaded:
            parts = urlsplit(address)
            assert not parts.scheme, f"{page.name} loads {address}"
            assert not parts.netloc, f"{page.name} loads {address}"


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_has_one_entry(name: str, pages: dict[Path, References]) -> None:
    found = [page.stem for page, one in pages.items() if name in one.anchors]
    assert len(found) == 1, f"{name} has entries in {found}"


@needs_chromium
@pytest.mark.parametrize(("width", "height"), WINDOWS)
def test_page_fits_its_window(
    width: int, height: int, site: Path, pages: dict[Path, References]
) -> None:
    async def main() -> None:
        async with async_playwright() as playwright:
            chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            window = await chromium.new_page(viewport={"width": width, "height": height})
            asked: list[str] = []
            window.on("request", lambda request: asked.append(request.url))
            for page in pages:
                await window.goto(page.as_uri())
                wide = await window.evaluate("document.scrollingElement.scrollWidth")
                assert wide <= width + 1, f"{page.relative_to(site)} is {wide} px wide"
                assert await window.evaluate(CUT) == [], page.relative_to(site)
            await chromium.close()
        assert [url for url in asked if urlsplit(url).scheme not in ("file", "data")] == []

    asyncio.run(main())
