"""Pictures of the figures, the same bytes for the same figures."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure

_INK = {"adsum": "#2b6cb0", "original": "#a0aec0", "redis": "#c05621", "other": "#68a063"}
#: What the original shows, as (size, value) to draw; ranges by their middle.
_ORIGINAL_TRACK = [(1_000, 75_000), (10_000, 75_000), (100_000, 29_500)]
_ORIGINAL_LIST = [(10, 0.007), (1_000, 0.55), (10_000, 6.0), (100_000, 100.0)]
_ORIGINAL_SEEN = {"p50": 756.0, "p99": 1497.0}


def draw(figures: list[Figure], directory: Path) -> list[tuple[str, str]]:
    """Draw what the figures allow; returns file names and descriptions. Needs matplotlib."""
    try:
        import matplotlib
    except ImportError:
        print("no pictures: matplotlib is not installed")
        return []
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "adsum", "font.size": 9})
    from matplotlib import pyplot

    drawn = []
    for name, description, paint in _PICTURES:
        canvas, axes = pyplot.subplots(figsize=(7, 3.4), layout="constrained")
        if paint(axes, figures):
            axes.set_title(description)
            axes.grid(True, which="major", alpha=0.3)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(frameon=False)
            canvas.savefig(directory / name, format="svg", metadata={"Date": None})
            drawn.append((name, description))
        pyplot.close(canvas)
    return drawn


def _series(figures: list[Figure], pattern: str) -> tuple[list[int], list[float]]:
    """Sizes and medians of the figures whose name matches; the size is its first group."""
    found = []
    for figure in figures:
        match = re.fullmatch(pattern, figure.name)
        if match:
            found.append((int(match[1].replace(",", "")), figure.median))
    found.sort()
    return [size for size, _ in found], [value for _, value in found]


def _changing(axes: Any, figures: list[Figure]) -> bool:
    for what, ink in (("track", "adsum"), ("update", "other"), ("untrack", "redis")):
        sizes, rates = _series(figures, rf"{what}, ([\d,]+) held")
        axes.plot(sizes, rates, "o-", color=_INK[ink], label=f"adsum, {what}")
    axes.plot(
        *zip(*_ORIGINAL_TRACK, strict=True), "s--", color=_INK["original"], label="original, track"
    )
    axes.set(xscale="log", xlabel="presences held", ylabel="per second", ylim=(0, None))
    return bool(sizes)


def _listing(axes: Any, figures: list[Figure]) -> bool:
    for pattern, label, style in (
        (r"list, first, topic of ([\d,]+)", "adsum, first", "o:"),
        (r"list, after one join, topic of ([\d,]+)", "adsum, after a join", "o--"),
        (r"list, unchanged, topic of ([\d,]+)", "adsum, unchanged", "o-"),
    ):
        sizes, times = _series(figures, pattern)
        axes.plot(sizes, times, style, color=_INK["adsum"], label=label)
    redis = _series(figures, r"list of ([\d,]+), after a change: Redis")
    if redis[0]:
        axes.plot(*redis, "^-", color=_INK["redis"], label="Redis")
    axes.plot(*zip(*_ORIGINAL_LIST, strict=True), "s--", color=_INK["original"], label="original")
    axes.set(xscale="log", yscale="log", xlabel="presences on the topic", ylabel="ms")
    return bool(sizes)


def _seen(axes: Any, figures: list[Figure]) -> bool:
    bars: list[tuple[str, float, str]] = []
    for which in ("p50", "p99"):
        for figure in figures:
            if figure.name.startswith("a change seen in another process") and which in figure.name:
                who = re.sub(r"a change seen in another process, |:? ?p\d\d|: ", "", figure.name)
                ink = "redis" if who == "Redis" else "adsum"
                label = who if who in ("Redis", "adsum") else f"adsum, {who.strip(', ')}"
                if who != "adsum":
                    bars.append((f"{label} {which}", figure.median, ink))
        bars.append((f"original {which}", _ORIGINAL_SEEN[which], "original"))
    axes.barh([b[0] for b in bars], [b[1] for b in bars], color=[_INK[b[2]] for b in bars])
    axes.invert_yaxis()
    axes.set(xscale="log", xlim=(0.1, None), xlabel="ms")
    return len(bars) > len(_ORIGINAL_SEEN)


def _failing(axes: Any, figures: list[Figure]) -> bool:
    rows = [figure for figure in figures if figure.group == "Failures"]
    names = [
        figure.name.split(" (")[0].replace(" to the leaves on both survivors", "")
        for figure in rows
    ]
    axes.barh(names, [figure.median for figure in rows], color=_INK["adsum"])
    axes.barh(["original, kill -9"], [29_500], color=_INK["original"])
    axes.invert_yaxis()
    axes.set(xscale="log", xlim=(10, None), xlabel="ms until the others show it")
    return bool(rows)


def _storming(axes: Any, figures: list[Figure]) -> bool:
    found = [figure for figure in figures if "until each knows all" in figure.name]
    inks = [_INK["adsum" if figure.name.endswith("adsum") else "redis"] for figure in found]
    names = [figure.name.replace(", until each knows all", "") for figure in found]
    axes.barh(names, [figure.median for figure in found], color=inks)
    axes.invert_yaxis()
    axes.set(xscale="log", xlim=(0.1, None), xlabel="seconds until everybody knows everybody")
    return bool(found)


_PICTURES: list[tuple[str, str, Callable[[Any, list[Figure]], bool]]] = [
    ("changing.svg", "Changes per second on one node", _changing),
    ("listing.svg", "Time to list a topic", _listing),
    ("seen.svg", "Time until a change is seen in another process", _seen),
    ("failing.svg", "Time until a failure is seen", _failing),
    ("storming.svg", "A thousand browsers enter one room at once", _storming),
]
