"""A hostile member sends random frames to a node, which goes on as if nothing was sent."""

from pathlib import Path

import pytest

from adsum.replication import streams
from adsum.replication.entry import Transition
from adsum.replication.state import Slice
from tests.support.effort import scaled

from .fuzz import attack
from .recorded_attack import RecordedAttack
from .soak import REGRESSIONS, attempt, replay

SEEDS = scaled(120)
BATCH = 40
KEPT = sorted(REGRESSIONS.glob("*.json"))


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_random_frames_of_a_member_harm_no_other(first: int) -> None:
    for seed in range(first, min(first + BATCH, SEEDS)):
        case = attack(seed)
        assert case is None, case.shortened().report()


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: path.stem)
def test_kept_attack_regressions_pass(kept: Path) -> None:
    assert RecordedAttack.from_json(kept.read_text()).failure() is None


@pytest.fixture
def without_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core that shows entries for ever that a reset has left out."""
    difference = streams.difference

    def forgetful(old: Slice, new: Slice) -> list[Transition]:
        return [(gone, now) for gone, now in difference(old, new) if now is not None]

    monkeypatch.setattr(streams, "difference", forgetful)


@pytest.mark.slow
@pytest.mark.usefixtures("without_sweep")
def test_failing_attack_is_kept_shrunk_to_steps_that_fail_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = iter(range(1200))
    seed, report = next((n, told) for n in seeds if (told := attempt(n, keep=tmp_path)))
    kept = RecordedAttack.from_json((tmp_path / f"{seed}.json").read_text())
    assert RecordedAttack.from_json(kept.to_json()) == kept
    assert len(kept.steps) < 30
    assert report == f"{kept.report()}\nreplay: {how_to_replay(tmp_path, seed)}"
    assert "AssertionError: the entry in the slice of a shown one: " in report
    assert replay(kept) == 1
    assert capsys.readouterr().out == kept.report() + "\n"


@pytest.mark.usefixtures("without_sweep")
def test_kept_attack_fails_on_a_core_with_the_old_bug() -> None:
    """Otherwise its frames are not of this version of the protocol, and it checks nothing."""
    kept = RecordedAttack.from_json((REGRESSIONS / "a-reset-without-a-sweep.json").read_text())
    assert kept.failure() is not None


def how_to_replay(folder: Path, seed: int) -> str:
    return f"python -m tests.hostile.soak --replay-file {folder / f'{seed}.json'}"
