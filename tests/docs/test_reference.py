"""The reference pages have an entry for each public name, and for no other."""

from pathlib import Path

import pytest

from tests.docs.reference import (
    ENTRIES,
    ENTRY,
    MEMBERS,
    PUBLIC,
    REFERENCE,
    SOURCE,
    SOURCES,
    TEXTS,
    documented,
    file_of,
)
from tests.support.markdown_pages import ROOT, relative


def test_every_public_name_has_one_entry_and_no_other_name_has() -> None:
    assert sorted(ENTRIES) == sorted(PUBLIC)


@pytest.mark.parametrize(("name", "members"), [each for t in TEXTS for each in MEMBERS.findall(t)])
def test_named_member_exists_and_has_a_docstring(name: str, members: str) -> None:
    public = documented(name)
    for member in members.split(", "):
        assert getattr(public, member).__doc__, f"{name}.{member}"


@pytest.mark.parametrize("page", REFERENCE, ids=relative)
def test_first_lines_of_a_page_name_the_sources_of_its_docstrings(page: Path) -> None:
    text = page.read_text()
    stated = SOURCES.match(text)
    assert stated is not None, "the page is empty in a checkout: say where its text is"
    sources = {ROOT / each for each in SOURCE.findall(stated[1])}
    found = [file_of(documented(name)) for name in ENTRY.findall(text)]
    used = {
        source for file in found if file for source in (file, *file.parents) if source in sources
    }
    assert used == sources
    for file in filter(None, found):
        assert sources & {file, *file.parents}, f"{file} is not named"
