"""Everything that the documentation points at is there."""

import re
from pathlib import Path

import pytest

from tests.support.markdown_pages import PAGES, ROOT, prose, relative

LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
#: The page that lists the pages of each kind; the navigation of the site comes from it.
INDEX = ROOT / "docs/README.md"
#: An item of such a list.
LISTED = re.compile(r"^- \[[^\]]+\]\(([\w./-]+\.md)\)", re.MULTILINE)
#: Files are named in code spans where a link would be noise: `tests/replication/test_state.py`.
NAMED = re.compile(r"`((?:src|tests|docs|examples)/[\w./-]+\.\w+)(?:::(\w+))?`")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found = set()
    for heading in HEADING.findall(prose(page)):
        text = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(text.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_relative_links_resolve(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{relative(page)} links to {target}"
        assert file.is_relative_to(ROOT), f"{relative(page)} links out of the repository: {target}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{relative(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_files_and_tests_that_are_named_exist(page: Path) -> None:
    for path, test in NAMED.findall(page.read_text()):
        assert (ROOT / path).exists(), f"{relative(page)} names {path}"
        text = (ROOT / path).read_text()
        assert not test or f"def {test}(" in text, f"{relative(page)} names {path}::{test}"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_page_is_in_the_index_of_its_folder_or_of_the_documentation(page: Path) -> None:
    indexes = [INDEX, page.parent / "README.md"]
    listed = [
        (index.parent / target).resolve()
        for index in indexes
        if index.exists()
        for target in LISTED.findall(index.read_text())
    ]
    assert page in (INDEX, ROOT / "README.md") or page in listed, f"add {relative(page)} to a list"
