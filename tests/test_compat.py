"""The tables of clients, servers and proxies on the pages are those of the last `make compat`."""

import json
from pathlib import Path

import pytest

from tests.support.compatibility import RECORD, CellRecord
from tests.support.markdown_pages import ROOT

from .compat import begin, end, render, with_tables


@pytest.mark.parametrize("page", ["docs/clients.md", "docs/deployment.md", "docs/servers.md"])
def test_page_has_the_tables_of_the_record(page: str) -> None:
    cells = json.loads((ROOT / "docs" / "compat.json").read_text())
    text = (ROOT / page).read_text()
    assert with_tables(text, cells) == text


def test_rows_and_columns_are_in_the_order_in_which_they_were_filled() -> None:
    record = CellRecord()
    for row, column, text in (("b", "two", "1"), ("b", "one", "2"), ("a", "two", "3")):
        record.add("server", row, column, text)
    record.add("client", "c", "join", "ok")
    table = "| server | two | one |\n| --- | --- | --- |\n| b | 1 | 2 |\n| a | 3 |  |\n"
    assert render("server", record.cells) == table
    page = f"above\n{begin('server')}\n{end('server')}\n"
    assert (
        with_tables(page, record.cells) == f"above\n{begin('server')}\n\n{table}\n{end('server')}\n"
    )


def test_run_of_one_table_keeps_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RECORD, str(tmp_path / "record.json"))
    for table in ("client", "server", "client"):
        record = CellRecord()
        record.add(table, "row", "column", table)
        record.save()
    CellRecord().save()
    cells = json.loads((tmp_path / "record.json").read_text())
    assert [cell["table"] for cell in cells] == ["server", "client"]
