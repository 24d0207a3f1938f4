"""The ledger that judges what phoenix.js announces takes what is right, and nothing else."""

from typing import Any

import pytest

from .presence_ledger import Ledger

JOIN, LEAVE = ["join", "ann", ["a1"]], ["leave", "ann", ["a1"]]
HERE: list[Any] = ["sync", {"ann": ["a1"]}]
NOBODY: list[Any] = ["sync", {}]


@pytest.mark.parametrize(
    "log",
    [
        [JOIN, HERE, LEAVE, NOBODY],
        [JOIN, HERE, ["join", "ann", ["a2"]], LEAVE, ["sync", {"ann": ["a2"]}]],
        [JOIN, HERE, HERE],
        [["join", "ann", ["a1", "a2"]], ["sync", {"ann": ["a2", "a1"]}]],
    ],
)
def test_ledger_accepts_real_changes(log: list[Any]) -> None:
    ledger = Ledger()
    ledger.take(log)
    assert ledger.came_back() == []


@pytest.mark.parametrize(
    ("log", "complaint"),
    [
        ([JOIN, HERE, JOIN], "was there"),
        ([LEAVE], "was not there"),
        ([JOIN, HERE, LEAVE, LEAVE], "was not there"),
        ([["join", "ann", []]], "without a ref"),
        ([HERE], "is not what is shown"),
        ([JOIN, NOBODY], "is not what is shown"),
        ([JOIN, HERE, NOBODY], "is not what is shown"),
    ],
)
def test_ledger_rejects_false_or_missing_announcements(log: list[Any], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        Ledger().take(log)


def test_ledger_detects_leave_and_rejoin_of_one_ref() -> None:
    ledger = Ledger()
    ledger.take([JOIN, HERE, LEAVE, NOBODY, JOIN, HERE])
    assert (ledger.came_back(), ledger.gone) == (["a1"], ["ann"])
