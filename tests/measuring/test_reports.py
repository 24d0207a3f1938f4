"""Figures are reported beside each other, with the build of the interpreter, and read back."""

import json
from pathlib import Path

import pytest
from benchmarks import earlier, report
from benchmarks.figures import MACHINE, Figure, Samples

ROOT = Path(__file__).parents[2]


def test_sides_of_a_measure_follow_each_other() -> None:
    samples = Samples()
    for value in (1.0, 3.0, 2.0):
        for what in ("delay", "CPU"):
            for side in ("adsum", "other"):
                samples.note(what, side, "ms", value)
    figures = samples.figures("Group")
    names = ["delay: adsum", "delay: other", "CPU: adsum", "CPU: other"]
    assert [figure.name for figure in figures] == names
    assert {figure.samples for figure in figures} == {(1.0, 3.0, 2.0)}
    assert {figure.group for figure in figures} == {"Group"}


def test_figure_is_read_back_from_json() -> None:
    figure = Figure(group="G", name="n", unit="ms", samples=(1.0, 2.0), original="7", target="5")
    assert Figure.from_json(json.loads(json.dumps(figure.as_json()))) == figure


def test_figures_of_an_earlier_version_have_names_of_their_own() -> None:
    rows = [
        Figure(group=group, name="track", unit="us", samples=(1.0,), target="5").as_json()
        for group in ("Changing", MACHINE)
    ]
    (figure,) = earlier.before(rows)
    assert (figure.name, figure.target) == ("track: before", "")


def test_earlier_version_is_found_in_a_folder() -> None:
    with earlier.source_of(str(ROOT)) as source:
        assert source == ROOT / "src"


def test_unknown_earlier_version_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="no-such-version: must be a folder"),
        earlier.source_of("no-such-version"),
    ):
        pass


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("'--enable-optimizations' '--with-lto'", "with profile-guided and with link-time"),
        ("'--prefix=/usr' '--enable-shared'", "without profile-guided and without link-time"),
        ("None", "without profile-guided and without link-time"),
    ],
)
def test_build_names_optimisations(arguments: str, text: str) -> None:
    assert report.build(arguments) == f"{text} optimisation"


def test_machine_names_interpreter_and_servers() -> None:
    machine = report.machine()
    for word in ("CPython", "profile-guided", "uvicorn", "websockets"):
        assert word in machine
