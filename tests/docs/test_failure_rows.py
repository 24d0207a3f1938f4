"""Each row of docs/failure-model.md names its tests by short links; the tests exist."""

import json
import re

import pytest

from tests.support.markdown_pages import ROOT

PAGE = (ROOT / "docs/failure-model.md").read_text()
#: Characters of a cell that names tests; longer ones make the source of a table unreadable.
LONGEST_CELL = 60
#: `[label]: ../tests/file.py#test_name`, at the end of the page; without a name, all of the file.
DEFINED = dict(re.findall(r"^\[([^\]]+)\]: \.\./(tests/\S+)$", PAGE, re.MULTILINE))
#: Labels in the cells; other links on the page have a target in parentheses.
NAMED = re.compile(r"\[([^\]]+)\](?![(:])")


def rows() -> list[list[str]]:
    """The cells of the rows of all tables whose last column is `shown by`."""
    found: list[list[str]] = []
    inside = False
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        inside = line.startswith("|") and (inside or cells[-1] == "shown by")
        if inside and cells[-1] != "shown by" and not line.startswith("|---"):
            found.append(cells)
    return found


ROWS = rows()


def test_rows_are_found() -> None:
    assert len(ROWS) > 60


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_row_names_a_defined_test(row: list[str]) -> None:
    shown_by = row[-1]
    assert len(shown_by) <= LONGEST_CELL
    assert NAMED.findall(shown_by) or shown_by == "the same"
    assert set(NAMED.findall(shown_by)) <= DEFINED.keys()


@pytest.mark.parametrize("label", DEFINED)
def test_definition_leads_to_a_test_and_is_used(label: str) -> None:
    path, _, test = DEFINED[label].partition("#")
    text = (ROOT / path).read_text()
    assert not test or f"def {test}(" in text
    assert f"[{label}]" in PAGE.replace(f"[{label}]:", "")


def test_tests_of_measured_rows_exist() -> None:
    for row in json.loads((ROOT / "docs/measured.json").read_text()):
        path, _, test = row["test"].partition("::")
        assert f"def {test}(" in (ROOT / path).read_text(), row
