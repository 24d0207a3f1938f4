"""The pages of documentation, and what is fenced in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Every page of the site, as `include_patterns` in docs/conf.py names them.
PATTERNS = ("*.md", "docs/**/*.md", "benchmarks/results/*.md", "examples/*.md")
PAGES = sorted(page for pattern in PATTERNS for page in ROOT.glob(pattern))


@dataclass(frozen=True)
class Block:
    """What stands between two fences: what it is said to be, where, and the text."""

    info: str
    line: int
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    opened: tuple[str, int] | None = None
    lines: list[str] = []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if not line.startswith("```"):
            lines.append(line)
        elif opened is None:
            opened, lines = (line[3:].strip(), number + 1), []
        else:
            yield Block(*opened, "\n".join(lines) + "\n")
            opened = None
    if opened is not None:
        raise ValueError(f"{page}: the fence at line {opened[1] - 1} is not closed")


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def relative(page: Path) -> str:
    """A page by its path in the repository."""
    return str(page.relative_to(ROOT))
