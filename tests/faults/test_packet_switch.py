"""The switch itself: it does to packets what it was told, as a seed decides, and to no others."""

from collections import Counter
from random import Random

import pytest

from .packet_switch import HELD_BACK, Fate, Line

PACKETS = 10_000


def carried(line: Line, seed: int = 1) -> tuple[list[list[float]], Counter[Fate]]:
    rng, fates = Random(seed), Counter[Fate]()
    return [line.carry(rng, fates) for _ in range(PACKETS)], fates


def test_good_line_delivers_every_packet_once_and_at_once() -> None:
    arrivals, fates = carried(Line())
    assert arrivals == [[0.0]] * PACKETS
    assert +fates == {"delivered": PACKETS}


def test_cut_line_delivers_nothing() -> None:
    arrivals, fates = carried(Line(cut=True))
    assert arrivals == [[]] * PACKETS
    assert +fates == {"cut": PACKETS}


@pytest.mark.parametrize(
    ("line", "fate"),
    [
        (Line(loss=0.2), "lost"),
        (Line(reorder=0.2), "held back"),
        (Line(duplicate=0.2), "duplicated"),
    ],
)
def test_faulty_packets_match_the_configured_rate(line: Line, fate: Fate) -> None:
    _, fates = carried(line)
    assert 0.18 * PACKETS < fates[fate] < 0.22 * PACKETS


def test_delay_stays_within_jitter_and_held_packets_are_reordered() -> None:
    arrivals, _ = carried(Line(delay=0.1, jitter=0.05))
    assert all(0.05 <= late <= 0.15 for [late] in arrivals)
    arrivals, _ = carried(Line(delay=0.1, reorder=0.5))
    assert {round(late, 3) for [late] in arrivals} == {0.1, round(0.1 + HELD_BACK, 3)}


def test_seed_determines_every_packet_fault() -> None:
    line = Line(loss=0.1, delay=0.1, jitter=0.05, reorder=0.1, duplicate=0.1)
    assert carried(line, 1) == carried(line, 1) != carried(line, 2)
