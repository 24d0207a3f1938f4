"""Runs the Python of one page, in order, as one asyncio program: ``python -m tests.docs.run_page``.

A statement may use `await`, as in ``python -m asyncio``. An expression with a comment that begins
with an arrow is checked: ``presence.count("room:1")  # -> 1``; ``...`` stands for anything. What is
fenced as ``python no-run`` is compiled only.
"""

import ast
import asyncio
import doctest
import sys
from inspect import CO_COROUTINE
from pathlib import Path
from types import CodeType
from typing import Any

from tests.support.markdown_pages import Block, blocks

ARROW = "# -> "


async def run(page: Path) -> None:
    """Run the blocks of a page in one namespace."""
    namespace: dict[str, Any] = {"__name__": "page", "_check": Check(page)}
    for block in blocks(page):
        if not block.info.startswith("python"):
            continue
        code = compile_block(page, block)
        if block.info == "python":
            value = eval(code, namespace)
            if code.co_flags & CO_COROUTINE:
                await value
        elif block.info != "python no-run":
            raise SystemExit(f"{page}:{block.line}: unknown fence {block.info!r}")


def compile_block(page: Path, block: Block) -> CodeType:
    """Code in which `await` is allowed, and expressions with an arrow are checked."""
    tree = Arrows(block.text.splitlines()).visit(ast.parse(block.text))
    ast.fix_missing_locations(ast.increment_lineno(tree, block.line - 1))
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(tree, str(page), "exec", flags=flags, dont_inherit=True)
    assert isinstance(code, CodeType)
    return code


class Arrows(ast.NodeTransformer):
    """Hands expressions with an arrow to `_check`."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def visit_Expr(self, node: ast.Expr) -> ast.Expr:
        line = node.end_lineno or node.lineno
        _, arrow, expected = self.lines[line - 1].partition(ARROW)
        if arrow:
            arguments = [node.value, ast.Constant(expected.strip())]
            call = ast.Call(ast.Name("_check", ast.Load()), arguments, [])
            return ast.copy_location(ast.Expr(call), node)
        return node


class Check:
    """Compares values with what a page says of them."""

    def __init__(self, page: Path) -> None:
        self.page = page

    def __call__(self, value: object, expected: str) -> None:
        line = sys._getframe(1).f_lineno
        compare = doctest.OutputChecker().check_output
        if not compare(f"{expected}\n", f"{value!r}\n", doctest.ELLIPSIS):
            raise SystemExit(f"{self.page}:{line}: the page says {expected}, it is {value!r}")


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1])))
