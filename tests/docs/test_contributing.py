"""The commands of CONTRIBUTING.md name files and targets that exist; hooks run `make lint`."""

import re

import pytest

from tests.support.markdown_pages import ROOT, blocks

PAGE = ROOT / "CONTRIBUTING.md"
MAKEFILE = (ROOT / "Makefile").read_text()
COMMANDS = "".join(block.text for block in blocks(PAGE) if block.info == "sh")
#: Files and folders in commands, some with a test.
NAMED = sorted(set(re.findall(r"\b((?:src|tests|docs)/[\w./-]*\w)(?:::(\w+))?", COMMANDS)))
#: The words that follow `make` on the page.
TARGETS = sorted(set(re.findall(r"(?:^|`)make ([a-z]+)", PAGE.read_text(), re.MULTILINE)))

#: The rows of the table of terms: a term, and files with tests that have it in their names.
TERMS = re.findall(
    r"^\| ([a-z -]+) \| ((?:`tests/[\w/.]+`(?:, )?)+) \|$", PAGE.read_text(), re.MULTILINE
)


@pytest.mark.parametrize(("path", "test"), NAMED)
def test_file_in_a_command_exists(path: str, test: str) -> None:
    assert (ROOT / path).exists()
    assert not test or f"def {test}(" in (ROOT / path).read_text()


@pytest.mark.parametrize(("term", "files"), TERMS, ids=[term for term, _ in TERMS])
def test_files_of_a_term_have_tests_with_it(term: str, files: str) -> None:
    word = term.replace(" ", "_")
    for path in re.findall(r"`(.+?)`", files):
        assert re.search(rf"def test_\w*{word}\w*\(", (ROOT / path).read_text()), path


def test_terms_are_found() -> None:
    assert len(TERMS) > 20


@pytest.mark.parametrize("target", TARGETS)
def test_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)


def test_hooks_are_the_commands_of_make_lint() -> None:
    hooks = re.findall(r"entry: (.+)", (ROOT / ".pre-commit-config.yaml").read_text())
    lint = re.search(r"^lint:.*\n((?:\t.+\n)+)", MAKEFILE, re.MULTILINE)
    code = re.search(r"^CODE := (.+)", MAKEFILE, re.MULTILINE)
    assert lint is not None
    assert code is not None
    commands = lint[1].replace("$(BIN)", ".venv/bin").replace("$(CODE)", code[1])
    assert hooks == [line.strip() for line in commands.splitlines()]
