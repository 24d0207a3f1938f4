"""A hostile member says random things to a node, which goes on as if nothing was said."""

import pytest

from .fuzz import run
from .soak import REGRESSIONS

SEEDS = 120
BATCH = 40


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_whatever_a_hostile_member_says_harms_nobody_else(first: int) -> None:
    for seed in range(first, first + BATCH):
        run(seed)


def test_what_once_failed_holds() -> None:
    for seed in REGRESSIONS.read_text().split():
        run(int(seed))
