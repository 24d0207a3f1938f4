"""Each how-to page shows programs that the tests run, its audience first, its limits last."""

import ast
import re
from pathlib import Path

import pytest

from tests.support.markdown_pages import ROOT, blocks, prose, relative

PAGES = sorted((ROOT / "docs/how-to").glob("*.md"))
#: Files with commands for readers.
READ = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").glob("*.py")),
]
#: A command that looks for the package on an index.
FROM_INDEX = re.compile(r"pip install\b[^`\n]* ['\"]?adsum\b[^`\n]*")
#: Lines of the README that a reader sees before scrolling.
FIRST_SCREEN = 60
#: The sentence before a program links to its file.
PROGRAM = re.compile(r"\]\(\.\./\.\./examples/(\w+)\.py\)")


def programs(page: Path) -> dict[str, str]:
    """The programs that a page shows, by the name of their file."""
    lines = page.read_text().splitlines()
    found = {}
    for block in blocks(page):
        if block.info == "python no-run":
            before = "\n".join(lines[: block.line - 2]).rstrip()
            link = PROGRAM.search(before.rpartition("\n\n")[2])
            assert link, f"{relative(page)}:{block.line}: the sentence before links to no program"
            found[link[1]] = block.text
    return found


def names(text: str, program: str) -> bool:
    """Whether a text names the file of a program, or its application as `program:app`."""
    return re.search(rf"\b{program}(\.py\b|:\w)", text) is not None


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_page_shows_its_programs_as_they_are(page: Path) -> None:
    assert programs(page)
    for program, shown in programs(page).items():
        assert shown == (ROOT / f"examples/{program}.py").read_text(), f"copy {program}.py again"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_program_says_how_to_run_it_and_is_run_by_a_test(page: Path) -> None:
    tests = [path for path in ROOT.glob("tests/**/*.py") if path != Path(__file__)]
    for program, text in programs(page).items():
        commands = re.findall(r"^    .+$", ast.get_docstring(ast.parse(text)) or "", re.MULTILINE)
        assert names("\n".join(commands), program), f"{program}.py lacks the command that runs it"
        assert any(names(path.read_text(), program) for path in tests), f"no test runs {program}.py"


@pytest.mark.parametrize("path", READ, ids=relative)
def test_commands_install_the_package_from_a_checkout(path: Path) -> None:
    found = FROM_INDEX.findall(path.read_text())
    assert not found, "the package is on no index: write './adsum[...]', or '..' in examples/"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_first_sentence_names_the_audience(page: Path) -> None:
    title, first = prose(page).split("\n\n")[:2]
    assert title.startswith("# ")
    assert re.match(r"For (\w+ )?(teams|authors|operators|users)\b", first)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_last_section_names_the_limits(page: Path) -> None:
    *_, last = re.split(r"^## ", prose(page), flags=re.MULTILINE)
    assert re.match(r"Limits\n\n(.+\n)*- ", last)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_page_and_programs_are_listed(page: Path) -> None:
    assert f"](how-to/{page.name})" in (ROOT / "docs/README.md").read_text()
    for program in programs(page):
        assert f"]({program}.py)" in (ROOT / "examples/README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_first_screen_of_the_readme_links_to_the_page(page: Path) -> None:
    screen = (ROOT / "README.md").read_text().splitlines()[:FIRST_SCREEN]
    assert f"]({relative(page)})" in "\n".join(screen)


def test_pages_are_found() -> None:
    assert len(PAGES) > 1
