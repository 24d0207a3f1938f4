"""The prose of the source uses the words of the field, see CONTRIBUTING.md.

A dialect of a few words for everything ("what waits", "whom a peer was told of") keeps readers out,
who search for the terms that they know. Its words are counted in docstrings and comments.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
#: Words of the dialect in 1,000 words, at most. Lower it when the count is lower; never raise it.
MOST = 1.0
DIALECT = re.compile(
    r"\b(what|who|whoever|whom|tell|tells|telling|told|lest|anew|thereof|be it|in vain)\b", re.I
)
WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")


def prose(text: str) -> Iterator[str]:
    """The docstrings and comments of a module."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def count(text: str) -> tuple[int, int]:
    """The number of words of the dialect, and of all words."""
    found = list(prose(text))
    return (
        sum(len(DIALECT.findall(one)) for one in found),
        sum(len(WORD.findall(one)) for one in found),
    )


def test_dialect_is_counted_in_docstrings_and_comments_alone() -> None:
    code = 'def tell(what):  # told anew\n    """Tell whom it concerns."""\n    return "who"\n'
    assert count(code) == (4, 6)


def test_dialect_is_rare() -> None:
    counts = {path: count(path.read_text()) for path in SOURCE.rglob("*.py")}
    dialect, words = (sum(column) for column in zip(*counts.values(), strict=True))
    worst = sorted(counts, key=lambda path: counts[path][0])[-5:]
    shown = [f"{counts[path][0]} in {path.relative_to(SOURCE)}" for path in worst]
    assert 1000 * dialect <= MOST * words, f"{dialect} in {words} words; most: {shown}"


#: Names of files that every package may have, or that it shares with another package for now.
SHARED_FILES = {"__init__.py", "__main__.py", "handshake.py", "limits.py"}


def test_each_class_name_has_one_meaning() -> None:
    homes: dict[str, list[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(str(path.relative_to(SOURCE)))
    assert not {name: found for name, found in homes.items() if len(found) > 1}


def test_each_file_name_has_one_meaning() -> None:
    homes: dict[str, list[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        homes.setdefault(path.name, []).append(str(path.relative_to(SOURCE)))
    twice = {name: found for name, found in homes.items() if len(found) > 1}
    assert not {name: found for name, found in twice.items() if name not in SHARED_FILES}
