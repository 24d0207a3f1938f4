"""The prose of the source and of the pages uses the words of the field, see CONTRIBUTING.md.

A dialect of a few words for everything ("what waits", "whom a peer was told of") keeps readers out,
who search for the terms that they know. Its words are counted in docstrings and comments, in texts
of errors and log lines, and in pages.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests.support.markdown_pages import ROOT
from tests.support.markdown_pages import prose as page_prose

SOURCE = ROOT / "src"
PAGES = [
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
#: Words of the dialect in 1,000 words of the source, at most. Lower it when the count is lower;
#: never raise it.
MOST = 0.2
#: The same in string literals of the source: texts of errors, log lines and close reasons.
MOST_IN_TEXTS = 0.0
#: The same in the pages, without code blocks.
MOST_IN_PAGES = 0.7
DIALECT = re.compile(
    r"\b(what|who|whoever|whom|tell|tells|telling|told|lest|anew|thereof|be it|in vain)\b", re.I
)
#: Words of the shortest string literal that counts as a text; shorter ones are mostly names.
LEAST_WORDS = 3
WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")


def prose(text: str) -> Iterator[str]:
    """The docstrings and comments of a module."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def texts(text: str) -> Iterator[str]:
    """The string literals of a module that are sentences, without docstrings."""
    tree = ast.parse(text)
    skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = [part.value for part in node.values if isinstance(part, ast.Constant)]
            skipped.update(map(id, node.values))
            found = "{}".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = node.value
        else:
            continue
        if len(WORD.findall(found)) >= LEAST_WORDS:
            yield found


def count(text: str) -> tuple[int, int]:
    """The number of words of the dialect, and of all words, in prose."""
    return len(DIALECT.findall(text)), len(WORD.findall(text))


def check(texts: dict[Path, str], most: float) -> None:
    """Fail if the dialect has more than so many words in 1,000 words of the texts together."""
    counts = {path: count(text) for path, text in texts.items()}
    dialect, words = (sum(column) for column in zip(*counts.values(), strict=True))
    worst = sorted(counts, key=lambda path: counts[path][0])[-5:]
    shown = [f"{counts[path][0]} in {path.relative_to(ROOT)}" for path in worst]
    assert 1000 * dialect <= most * words, f"{dialect} in {words} words; most: {shown}"


def test_dialect_is_counted_in_docstrings_and_comments_alone() -> None:
    code = 'def tell(what):  # told anew\n    """Tell whom it concerns."""\n    return "who"\n'
    assert count("\n".join(prose(code))) == (4, 6)


def test_dialect_is_counted_in_string_literals_that_are_sentences() -> None:
    code = '''
def f(who):
    """Tell whom it concerns."""
    g("who", "what was told", f"{who} is told {1} anew {2}", key="whom")
'''
    assert [count(text) for text in texts(code)] == [(2, 3), (2, 3)]


def test_dialect_is_counted_in_pages_without_code_blocks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Who is told\n\n```python\nwhat = 1\n```\n\nWhat remains\n")
    assert count(page_prose(page)) == (3, 5)


def test_dialect_is_rare_in_the_source() -> None:
    check({path: "\n".join(prose(path.read_text())) for path in SOURCE.rglob("*.py")}, MOST)


def test_dialect_is_rare_in_the_texts_of_errors_and_logs() -> None:
    check(
        {path: "\n".join(texts(path.read_text())) for path in SOURCE.rglob("*.py")}, MOST_IN_TEXTS
    )


def test_errors_state_accepted_values_as_must_be() -> None:
    found = [text for path in SOURCE.rglob("*.py") for text in texts(path.read_text())]
    assert not [text for text in found if re.search(r"\baccepted (is|are)\b", text)]


def test_dialect_is_rare_in_the_pages() -> None:
    check({page: page_prose(page) for page in PAGES}, MOST_IN_PAGES)


#: Names of files that every package may have: its limits are in `limits.py`.
SHARED_FILES = {"__init__.py", "__main__.py", "limits.py"}


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
