"""The tables of the page about capacity follow from the figures that are kept beside it."""

import json
from typing import Any

import pytest
from benchmarks.capacity import (
    BEGIN,
    COSTS,
    DIRECT,
    END,
    PLAIN,
    Application,
    record,
    render,
)
from benchmarks.figures import Figure
from benchmarks.pages import replaced

from tests.support.markdown_pages import ROOT

PAGE = ROOT / "docs/capacity.md"
RECORDED = json.loads((ROOT / "docs/capacity.json").read_text())

#: Group, name without side, and whether there is one for each side.
FIGURES = [
    ("Push and reply, 100 clients", "1 worker, CPU of the servers for a reply", True),
    ("Push and reply, 100 clients", "2 workers, CPU of the servers for a reply", True),
    ("20 broadcasts per second to 9, 1 worker", "CPU of the servers for a delivery", True),
    ("20 presence updates per second to 9, 1 worker", "CPU of the servers for a delivery", True),
    ("Changing", "track, 1,000 held", False),
    ("Changing", "track, 10,000 held", False),
    ("Changing", "track, 10,000 held: before", False),
    ("Merging", "delta of one entry into 5: decode and merge", False),
    ("Merging", "delta of 1,000 entries into 5: decode and merge", False),
    ("5 joined connections, 1 worker", "a worker without clients", True),
    ("5 joined connections, 1 worker", "a joined connection", True),
    ("5 joined connections, 1 worker", "CPU of the servers for connecting and joining", True),
    ("Memory", "a presence on its owner, 1 topic", False),
    ("Memory", "a presence on its replica, 1,000 topics", False),
]


def results(*sides: str) -> dict[str, Any]:
    """A results.json in which each figure has its number, counted from 1, as its median."""
    rows = []
    for number, (group, name, by_side) in enumerate(FIGURES, 1):
        samples = (number - 0.5, float(number), number + 0.5)
        for side in sides if by_side else ("",):
            full = f"{name}: {side}" if side else name
            rows.append(Figure(group=group, name=full, unit="", samples=samples).as_json())
    return {"machine": "a machine", "figures": rows}


def test_page_shows_the_tables_of_its_figures() -> None:
    text = PAGE.read_text()
    assert replaced(text, BEGIN, END, render(RECORDED)) == text, "run python -m benchmarks.capacity"


def test_costs_are_taken_from_the_figures_of_their_names() -> None:
    costs = record(results(PLAIN, DIRECT, "adsum before"))["costs"]
    medians = {symbol: values[PLAIN][1] for symbol, values in costs.items()}
    assert medians == {
        "m": 1,
        "d": 3,
        "p": 4,
        "t": 1e6 / 6,
        "g": 8,
        "b": 9,
        "w": 10,
        "c": 11,
        "j": 12,
        "o": 0.013,
        "r": 0.014,
    }
    by_side = {symbol for symbol, values in costs.items() if DIRECT in values}
    assert by_side == {cost.symbol for cost in COSTS if cost.by_side}


def test_lowest_value_of_a_rate_is_the_highest_cost() -> None:
    low, _, high = record(results(PLAIN))["costs"]["t"][PLAIN]
    assert (low, high) == (1e6 / 6.5, 1e6 / 5.5)


def test_missing_figure_is_named() -> None:
    partial = results(PLAIN)
    partial["figures"] = [row for row in partial["figures"] if row["group"] != "Merging"]
    with pytest.raises(ValueError, match="delta of one entry"):
        record(partial)


def test_column_of_an_unmeasured_side_is_left_out() -> None:
    assert "WebSocketProtocol" not in render(record(results(PLAIN)))
    assert "WebSocketProtocol" in render(record(results(PLAIN, DIRECT)))


def test_application_costs_the_sum_of_its_parts() -> None:
    one = Application("all", 1_000, 1e6, 1e5, 1e4, 1e3, 1e2, 1e1, 2_000)
    costs = {
        "j": 0.5,
        "m": 1,
        "d": 20,
        "p": 300,
        "t": 4_000,
        "g": 50_000,
        "w": 10,
        "c": 3,
        "o": 2,
        "r": 1,
    }
    assert one.cpu(costs) == pytest.approx(0.5 + 0.1 + 0.2 + 0.3 + 0.4 + 0.5)
    assert one.memory(costs) == pytest.approx(10 + 5 + 2)


def test_page_without_a_place_is_refused() -> None:
    for page in ("", f"{BEGIN}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{END}\n" * 2):
        with pytest.raises(ValueError, match="once, in this order"):
            replaced(page, BEGIN, END, "table\n")
