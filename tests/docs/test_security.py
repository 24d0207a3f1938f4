"""Each row of the tables in SECURITY.md says whether an action is possible, and names its tests."""

import re
from functools import cache

import pytest

from tests.support.markdown_pages import ROOT

HEAD = ("action", "possible", "shown by")
#: `test_name`, or `test_name[case]`.
NAMED = re.compile(r"`(test_\w+)(?:\[(\w+)\])?`")
#: The attacks that `tests/attacks/attacker.py` registers.
ATTACKS = frozenset(
    re.findall(
        r"^@attack\ndef (\w+)\(", (ROOT / "tests/attacks/attacker.py").read_text(), re.MULTILINE
    )
)
#: A case of a test that has the attacks as its parameters.
ATTACK = "test_attack_does_not_affect_honest_clients"


def cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.strip().strip("|").split("|"))


def rows() -> list[tuple[str, ...]]:
    """The rows of all tables with this head."""
    found: list[tuple[str, ...]] = []
    inside = False
    for line in (ROOT / "SECURITY.md").read_text().splitlines():
        inside = line.startswith("|") and (inside or cells(line) == HEAD)
        if inside and cells(line) != HEAD and not line.startswith("|---"):
            found.append(cells(line))
    return found


ROWS = rows()


@cache
def known_tests() -> frozenset[str]:
    """The name of every test function."""
    texts = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    return frozenset(name for text in texts for name in re.findall(r"def (test_\w+)\(", text))


def test_there_are_tables() -> None:
    assert len(ROWS) > 30


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:50])
def test_row_is_shown_by_tests_that_exist(row: tuple[str, ...]) -> None:
    action, possible, shown_by = row
    assert action
    assert possible in ("yes", "no"), row
    named = NAMED.findall(shown_by)
    assert named, f"no test shows {action!r}"
    for test, case in named:
        assert test in known_tests(), f"{test} does not exist"
        assert not case or (test == ATTACK and case in ATTACKS), f"{test} has no case {case}"


def test_every_attack_is_in_a_table() -> None:
    named = {case for row in ROWS for _, case in NAMED.findall(row[2]) if case}
    others = {"harmless", "heartbeat_frames", "silent_links"}  # these have tests of their own
    assert named == set(ATTACKS) - others
