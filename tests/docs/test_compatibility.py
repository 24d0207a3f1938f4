"""The table of docs/compatibility.md is that of its record, which `make compat` writes."""

import json
from pathlib import Path

import pytest

from tests.support.compatibility import BEGIN, RECORD, Compatible, Row, render, save
from tests.support.markdown_pages import ROOT

PAGE, FILE = ROOT / "docs/compatibility.md", ROOT / "docs/compatibility.json"


def test_page_has_the_rows_of_the_record_each_with_a_test_that_exists() -> None:
    rows = json.loads(FILE.read_text())
    assert f"{BEGIN}\n\n{render(rows)}" in PAGE.read_text()
    for row in rows:
        assert "compatible(" in (ROOT / row["test"]).read_text()


def test_rows_are_saved_in_their_order_with_versions_if_the_environment_names_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[Row] = []
    compatible = Compatible(rows, "tests/docs/test_a.py::test_b[c]")
    compatible("proxy", "a reload", "1.2.3")
    compatible("pytest", "a test")
    compatible("proxy", "a kill", "1.2.3")
    save(rows)
    monkeypatch.setenv(RECORD, str(tmp_path / "record"))
    save(rows)
    saved = json.loads((tmp_path / "record").read_text())
    shown = [(row["part"], row["version"], row["works"]) for row in saved]
    assert shown == [
        ("proxy", "1.2.3", "a kill"),
        ("proxy", "1.2.3", "a reload"),
        ("pytest", pytest.__version__, "a test"),
    ]
    assert "| proxy | 1.2.3 | a kill | [test_a](../tests/docs/test_a.py) |" in render(saved)
