"""The table of what was measured: complete, in a stable order, and put where it belongs."""

import json
from pathlib import Path

import pytest
from benchmarks.pages import replaced

from tests.support.measurements import RECORD, Measured, Record

from .table import BEGIN, END, render


def record_of_two_tests() -> Record:
    record = Record()
    Measured(record, "tests/b.py::test_b")(fault="stop", sees="a leave", seconds=[5.51234])
    measured = Measured(record, "tests/a.py::test_a")
    measured(fault="kill", sees="leaves", seconds=[0.25, 0.2312, 0.5])
    measured(fault="kill", sees="memory", MB=[1234.5])
    measured = Measured(record, "tests/a.py::test_a[nats]", over="nats")
    measured(fault="kill", sees="leaves", seconds=[0.3])
    return record


TABLE = """\
| fault | effect on the others | links over | low, median, high | times | test |
| --- | --- | --- | --- | --- | --- |
| kill | leaves | sockets | 0.231, 0.25, 0.5 s | 3 | [a](../tests/a.py) |
| kill | leaves | nats | 0.3 s | 1 | [a](../tests/a.py) |
| kill | memory | sockets | 1234 MB | 1 | [a](../tests/a.py) |
| stop | a leave | sockets | 5.51 s | 1 | [b](../tests/b.py) |
"""


def test_table_does_not_depend_on_the_order_of_tests() -> None:
    rows = record_of_two_tests().rows
    assert render(rows) == render(reversed(rows)) == TABLE


def test_measurements_are_saved_to_the_file_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = record_of_two_tests()
    monkeypatch.delenv(RECORD, raising=False)
    record.save()
    monkeypatch.setenv(RECORD, str(tmp_path / "record.json"))
    record.save()
    assert json.loads((tmp_path / "record.json").read_text()) == record.rows


def test_new_table_replaces_the_old_one() -> None:
    page = f"above\n{BEGIN}\nold\n{END}\nbelow\n"
    once = replaced(page, BEGIN, END, TABLE)
    assert once == f"above\n{BEGIN}\n\n{TABLE}\n{END}\nbelow\n"
    assert replaced(once, BEGIN, END, TABLE) == once


@pytest.mark.parametrize(
    "page",
    ["", f"{BEGIN}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{END}\n" * 2],
    ids=["no place", "no end", "wrong order", "two places"],
)
def test_page_without_exactly_one_table_place_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="once, in this order"):
        replaced(page, BEGIN, END, TABLE)
