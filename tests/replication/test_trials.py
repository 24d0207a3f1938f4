"""Bad luck from seeds: laws at every step, agreement in the end, a good account of a failure."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from adsum.replication import streams
from adsum.replication.entry import Transition
from adsum.replication.state import Slice
from adsum.testing import BrokenLawError, Simulation, Trial
from adsum.testing.__main__ import attempt, main
from adsum.testing.simulator.faults import Step
from adsum.testing.simulator.trial import LENGTH, LOSS
from tests.support.effort import scaled

ROOT = Path(__file__).parents[2]
#: What once failed, and what it was cut down to.
REGRESSIONS = Path(__file__).with_name("regressions")
KEPT = sorted(REGRESSIONS.glob("*.json"))


@pytest.mark.parametrize("seed", range(scaled(40)))
def test_cluster_converges_to_the_tracked_presences_after_any_faults(seed: int) -> None:
    Trial.from_seed(seed).run()


@pytest.mark.parametrize("seed", range(47, 47 + 8 * scaled(10), 8))
def test_lost_frames_are_detected_as_gaps_and_recovered(seed: int) -> None:
    trial = Trial.from_seed(seed, 60)
    assert trial.loss == LOSS
    trial.run()


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: path.stem)
def test_kept_regressions_pass(kept: Path) -> None:
    Trial.from_json(kept.read_text()).run()


# In many parts, because pytest-xdist begins with the files that have the most tests.
@pytest.mark.processes
@pytest.mark.parametrize("first", range(0, 1000, 50))
def test_laws_hold_for_a_thousand_seeds(first: int) -> None:
    soak = command("--first", str(first), "--seeds", "50")
    run = subprocess.run(soak, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


@pytest.mark.slow
def test_same_seed_gives_same_trace_under_every_hash_seed() -> None:
    first, second = trace("1"), trace("2")
    assert first == second
    assert len(first.splitlines()) > 1000


def test_kept_trial_is_the_same_trial() -> None:
    trial = Trial.from_seed(11, 40)
    assert Trial.from_json(trial.to_json()) == trial


def test_seed_that_fails_in_soak_fails_in_replay_with_the_same_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a core that never retransmits: a trial fails if and only if it loses frames."""

    def without_retransmission(trial: Trial, trace: object = None) -> None:
        if trial.loss:
            raise BrokenLawError(f"seed {trial.seed}: a frame was lost")

    monkeypatch.setattr(Trial, "run", without_retransmission)
    failures = {seed: attempt(seed) for seed in range(8)}
    assert [seed for seed, report in failures.items() if report] == [7]
    monkeypatch.setattr("sys.argv", ["adsum.testing", "--replay", "7"])
    assert main() == 1
    assert capsys.readouterr().out.strip() == failures[7]


@pytest.mark.parametrize("trial", [Trial.from_seed(7), Trial.from_seed(7, 30), Trial.from_seed(8)])
def test_replay_command_of_a_seeded_trial_names_the_seed(trial: Trial) -> None:
    options = dict(zip(*[iter(trial.how_to_replay.split()[3:])] * 2, strict=True))
    assert Trial.from_seed(int(options["--replay"]), int(options.get("--steps", LENGTH))) == trial


def test_replay_command_of_any_other_trial_runs_that_trial() -> None:
    kept = Trial.from_json(KEPT[0].read_text())
    shell = kept.how_to_replay.replace("python", sys.executable, 1)
    done = subprocess.run(shell, shell=True, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == f"seed {kept.seed} keeps every law\n", done.stderr
    assert Trial.from_json(shell.split("\n", 1)[1].removesuffix("\nEND")) == kept


@pytest.mark.slow
def test_failure_report_has_seed_steps_trace_and_replay_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a core that shows for ever what a reset has left out."""
    difference = streams.difference

    def forgetful(old: Slice, new: Slice) -> list[Transition]:
        return [(gone, now) for gone, now in difference(old, new) if now is not None]

    monkeypatch.setattr(streams, "difference", forgetful)
    kept = Trial.from_json((REGRESSIONS / "a-reset-without-a-sweep.json").read_text())
    more = Trial.from_seed(kept.seed, 20).steps
    long = replace(kept, steps=kept.steps + more)
    told = long.report()
    assert f"seed {kept.seed} breaks a law: BrokenLawError: seed {kept.seed}, t=" in told
    assert f"{len(kept.steps)} of its {len(kept.steps) + len(more)} steps do" in told
    for number, step in enumerate(kept.steps, 1):
        assert f"  {number:3} {step}" in told
    assert re.search(r"n2 -> n1  delta n2@\w+ \(0, 2602\] \d+ changes of the reset at 2602", told)
    assert told.endswith(f"replay: {long.how_to_replay}")


def test_shrunk_trial_has_only_the_steps_that_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a law that is broken by one kind of step, one step of that kind remains."""

    def no_churn(trial: Trial, trace: object = None) -> None:
        if any(step.name == "churn" for step in trial.steps):
            raise BrokenLawError("there is churn")

    monkeypatch.setattr(Trial, "run", no_churn)
    steps = [Step("heal", (), 1.0)] * 40 + [Step("churn", ("n1", 9), 1.0)] * 2
    shrunk = Trial(1, 2, 20.0, 0.0, 42, tuple(steps)).shrunk()
    assert [step.name for step in shrunk.steps] == ["churn"]


@pytest.mark.processes
def test_hundred_nodes_converge_under_churn() -> None:
    simulation = Simulation(nodes=100, seed=1)
    for step in range(300):
        name = f"n{simulation.rng.randint(1, 100)}"
        node = simulation.node(name)
        if not node.running:
            simulation.start(name)
        elif step % 25 == 24:
            simulation.kill(name)
        elif len(node.own_entries) > 2:
            node.untrack(next(iter(node.own_entries.values())))
        else:
            node.track(f"room {simulation.rng.randrange(5)}", f"user {step}")
        simulation.run(0.02)
    simulation.settle()
    simulation.check_agreement()
    assert {len(node.links) for node in simulation.alive} == {len(simulation.alive) - 1}


@pytest.mark.parametrize(
    "text", [None, "no JSON", "{}", '{"steps": [], "other": 1}', '{"steps": 1}']
)
def test_replay_of_an_invalid_file_is_a_usage_error(
    text: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "kept.json"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr("sys.argv", ["adsum.testing", "--replay-file", str(file)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert f"--replay-file '{file}': must be a file that --keep wrote" in capsys.readouterr().err


def trace(hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    run = command("--replay", "11", "--steps", "60", "--trace")
    done = subprocess.run(
        run, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "adsum.testing", *arguments]
