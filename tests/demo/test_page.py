"""The page of the demo in a real browser, with phoenix.js as npm delivers it."""

import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect, sync_playwright

from tests.support.bus_servers import SEARCH
from tests.support.chromium import CHROMIUM, FLAGS
from tests.support.waiting import DEADLINE, eventually

from .demo_process import Demo

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
#: What browsers say of a server that is killed; it cannot be kept from them.
EXPECTED = re.compile(r"WebSocket connection to \S+ failed")

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(CHROMIUM is None, reason="needs the package chromium"),
]

Visit = Callable[..., "Tour"]


class Tour:
    """The page, and what a visitor does there."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("console", self._said)
        page.on("pageerror", self._raised)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not EXPECTED.search(message.text):
            self.errors.append(message.text)

    def _raised(self, error: Exception) -> None:
        self.errors.append(str(error))

    def column(self, node: str) -> Locator:
        return self.page.get_by_role("article", name=f"Server {node}", exact=True)

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def device(self, kind: str) -> Locator:
        return self.page.get_by_role("article", name=f"Your {kind}", exact=True)

    def you(self, node: str) -> Locator:
        """Your row in the list of a server."""
        return self.column(node).locator(".person.is-you")

    def shows(self, node: str, *devices: str) -> None:
        """Wait until a server shows you, once, with these devices: ``phone n1``."""
        expect(self.you(node)).to_have_count(1)
        expect(self.you(node).locator(".at")).to_have_count(len(devices))
        for device in devices:
            kind, through = device.split()
            place = self.you(node).locator(f'.at:has([aria-label="{kind}"])')
            expect(place).to_have_text(through)

    def is_through(self, kind: str, node: str) -> None:
        """Wait until a device is connected through a server."""
        expect(self.device(kind).locator('.place[aria-pressed="true"]')).to_have_text(node)

    def types(self, text: str, node: str) -> None:
        """Type on the phone until a server shows it, which it does until a pause."""
        field = self.device("phone").get_by_role("textbox")
        field.press_sequentially(text)

        def shown() -> bool:
            field.fill(text)
            return "typing" in self.you(node).inner_text()

        eventually(shown, f"{node} shows that you type")

    def counts(self, devices: str) -> None:
        """Wait until the page says how many devices you have."""
        expect(self.page.locator("#invite")).to_have_text(f"You are one person, with {devices}.")

    def people(self, node: str, number: int) -> None:
        expect(self.column(node).locator(".person")).to_have_count(number)

    def fits(self) -> None:
        width = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert self.page.evaluate(width) == 0, "nothing to scroll sideways"


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    """One demo for all tests; each leaves it with all servers running, in one network."""
    with Demo() as demo:
        yield demo.wait_until_open()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=1000 * DEADLINE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(demo: Demo, chromium: Browser) -> Iterator[Visit]:
    """Opens the page; in the end nothing may have gone wrong in it."""
    tours: list[Tour] = []

    def open_page(size: str = "desktop", **context: Any) -> Tour:
        width, height = SIZES[size]
        page = chromium.new_page(viewport={"width": width, "height": height}, **context)
        tours.append(Tour(page))
        page.goto(demo.url)
        for node in ("n1", "n2", "n3"):
            expect(tours[-1].column(node)).to_contain_text("guest Grace")
        return tours[-1]

    yield open_page
    for tour in tours:
        tour.page.close()
        assert not tour.errors


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [*SIZES])
def test_tour_of_everything(visit: Visit, size: str, scheme: str) -> None:
    tour = visit(size, color_scheme=scheme)
    tour.fits()
    tour.press("Join the room")
    tour.is_through("phone", "n1")
    tour.counts("1 device")
    tour.press("Open a laptop, too")
    tour.is_through("laptop", "n2")
    tour.counts("2 devices")
    for node in ("n1", "n2", "n3"):
        tour.shows(node, "phone n1", "laptop n2")
        tour.people(node, 6)

    expect(tour.column("n2").locator(".traffic li")).to_have_count(3)
    tour.press("Kill n1")
    tour.is_through("phone", "n2")
    expect(tour.column("n2").locator(".traffic li")).to_have_count(2)
    expect(tour.device("phone")).to_contain_text(re.compile(r"Lost n1; here after \d+ ms"))
    for node in ("n2", "n3"):
        tour.people(node, 4)
        tour.shows(node, "phone n2", "laptop n2")
    tour.press("Restart n1")
    tour.people("n1", 6)
    tour.shows("n1", "phone n2", "laptop n2")

    tour.press("Cut the network between n1 and n2")
    expect(tour.you("n1")).to_have_count(0)
    tour.people("n1", 2)
    for node in ("n2", "n3"):
        tour.people(node, 4)
        tour.shows(node, "phone n2", "laptop n2")
    expect(tour.page.get_by_role("status").filter(has_text="was cut")).to_contain_text(" s")
    tour.fits()
    tour.press("Heal the network between n1 and n2")
    for node in ("n1", "n2", "n3"):
        tour.people(node, 6)
        tour.shows(node, "phone n2", "laptop n2")

    tour.device("phone").get_by_role("button", name="Frames").click()
    frames = tour.page.get_by_role("list", name="Frames, the newest last")
    for event in ("phx_join", "phx_reply", "presence_state", "presence_diff"):
        expect(frames.locator(f'li:has-text("{event}")').first).to_be_visible()
    tour.fits()
    tour.press("Close your phone")
    tour.counts("1 device")
    tour.press("Close your laptop")
    expect(tour.you("n3")).to_have_count(0)


def test_action_is_seen_on_every_server(visit: Visit) -> None:
    tour = visit()
    tour.press("Join the room")
    tour.is_through("phone", "n1")
    message = tour.device("phone").get_by_role("textbox")
    tour.types("hello", "n3")
    expect(tour.you("n3")).not_to_contain_text("typing")  # a pause ends it
    message.press("Enter")
    expect(tour.you("n3").locator(".bubble")).to_have_text("hello")
    expect(tour.you("n3").locator(".bubble")).to_have_count(0)

    tour.page.get_by_role("textbox", name="You are").fill("Zoë")
    tour.press("Rename")
    expect(tour.you("n3")).to_contain_text("Zoë")
    tour.press("Go away")
    expect(tour.you("n3")).to_contain_text("away")
    tour.press("Come back")
    expect(tour.you("n3")).not_to_contain_text("away")
    tour.press("connect through n3")
    tour.is_through("phone", "n3")
    tour.shows("n1", "phone n3")


def test_two_windows_are_two_people(visit: Visit) -> None:
    one, other = visit(), visit("phone")
    for tour in (one, other):
        tour.press("Join the room")
        tour.is_through("phone", "n1")
    for tour in (one, other):
        tour.people("n2", 7)


def test_device_leaves_a_server_that_stands_still(visit: Visit) -> None:
    tour = visit()
    tour.press("Join the room")
    tour.is_through("phone", "n1")
    tour.press("Pause n1")
    tour.is_through("phone", "n2")
    tour.shows("n3", "phone n2")
    tour.press("Resume n1")
    tour.shows("n1", "phone n2")
    tour.people("n1", 6)


def test_everything_can_be_done_with_the_keyboard(visit: Visit) -> None:
    tour = visit()
    focused, press = tour.page.locator(":focus"), tour.page.keyboard.press
    for _ in range(2):  # the name; `Rename` is disabled, as there is nothing to rename
        press("Tab")
    press("Enter")
    expect(focused).to_have_attribute("aria-label", "Say something with your phone")
    tour.is_through("phone", "n1")
    frames = tour.device("phone").get_by_role("button", name="Frames")
    while not frames.evaluate("button => button === document.activeElement"):
        press("Tab")
    press("Enter")
    expect(focused).to_have_text("Frames")
    press("Escape")
    expect(tour.page.get_by_role("list", name="Frames, the newest last")).to_be_hidden()
    assert frames.evaluate("button => button === document.activeElement")


def test_nothing_moves_where_motion_is_not_wanted(visit: Visit) -> None:
    tour = visit(reduced_motion="reduce")
    tour.press("Join the room")
    tour.types("hello", "n1")  # it may begin while the join is under way
    running = "document.getAnimations().filter(({ playState }) => playState === 'running').length"
    assert tour.page.evaluate(running) == 0


def test_reloaded_page_is_the_same_visitor(visit: Visit) -> None:
    tour = visit()
    tour.press("Join the room")
    tour.shows("n2", "phone n1")
    name = tour.you("n2").locator(".who").inner_text()
    tour.page.reload()
    tour.shows("n2", "phone n1")
    expect(tour.you("n2").locator(".who")).to_have_text(name)


@pytest.mark.parametrize("size", [*SIZES])
@pytest.mark.parametrize("program", ["nats-server", "redis-server"])
def test_tour_with_an_engine_that_is_killed(chromium: Browser, program: str, size: str) -> None:
    if shutil.which(program, path=SEARCH) is None:
        pytest.skip(f"needs the package {program}")
    carrier = program.removesuffix("-server")
    pytest.importorskip(carrier)
    width, height = SIZES[size]
    with Demo("--carrier", carrier) as demo:
        tour = Tour(chromium.new_page(viewport={"width": width, "height": height}))
        tour.page.goto(demo.wait_until_open().url)
        expect(tour.page.locator("#tagline")).to_contain_text(f"over {program}")
        expect(tour.page.locator('[data-step="cut"]')).to_be_hidden()
        for node in ("n1", "n2", "n3"):
            tour.people(node, 5)
        tour.fits()
        tour.press(f"Kill {program}")
        expect(tour.page.locator("#latest")).to_contain_text("Everybody stays listed")
        expect(tour.page.locator('[data-step="outage"]')).to_have_class("done")
        for node in ("n1", "n2", "n3"):
            tour.people(node, 5)
        tour.press(f"Start {program}")
        expect(tour.page.locator("#latest")).to_contain_text("was started again")
        expect(tour.page.get_by_role("button", name=f"Kill {program}", exact=True)).to_be_visible()
        tour.press("Join the room")
        for node in ("n1", "n2", "n3"):
            tour.shows(node, "phone n1")
        tour.page.close()
        assert not tour.errors
