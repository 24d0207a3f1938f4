"""Helpers of several suites are in `tests/support`; a suite imports only itself and these."""

import ast
import asyncio
import functools
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .support import waiting
from .support.ports import free_port, free_port_range
from .support.socket_owner import owner_of
from .support.waiting import assert_within, eventually, until

TESTS = Path(__file__).parent
SUPPORT = TESTS / "support"
#: Helpers that are defined once, in `tests/support`.
SHARED = {"until", "eventually", "assert_within", "wait_until", "free_port", "clean_environment"}


@functools.cache
def parsed() -> list[tuple[Path, ast.Module]]:
    """Every file of the tests, with its syntax tree."""
    return [
        (path.relative_to(TESTS), ast.parse(path.read_text()))
        for path in sorted(TESTS.rglob("*.py"))
    ]


def imported(path: Path, tree: ast.Module) -> Iterator[str]:
    """The absolute names of the modules that a file of the tests imports."""
    package = ("tests", *path.parts[:-1])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def test_no_suite_imports_a_conftest() -> None:
    # pytest gives the fixtures of a conftest to the suite beneath it; other names belong elsewhere.
    for path, tree in parsed():
        for module in imported(path, tree):
            assert "conftest" not in module.split("."), f"{path} imports {module}"


def test_support_imports_no_suite() -> None:
    for path, tree in parsed():
        if path.parts[0] == SUPPORT.name:
            for module in imported(path, tree):
                own = module == "tests" or module.startswith("tests.support")
                assert own or not module.startswith("tests."), f"{path} imports {module}"


def test_no_suite_imports_another_suite() -> None:
    # Modules directly in `tests` belong to no suite: they may import any, and any may import them.
    suites = {path.parts[0] for path, _ in parsed() if len(path.parts) > 1}
    for path, tree in parsed():
        others = suites - {path.parts[0], SUPPORT.name} if len(path.parts) > 1 else set()
        for module in imported(path, tree):
            package, _, rest = module.partition(".")
            foreign = package == "tests" and rest.split(".")[0] in others
            assert not foreign, f"{path} imports {module}"


def test_module_of_support_is_used_by_more_than_one_suite() -> None:
    users: dict[str, set[str]] = {}
    for path, tree in parsed():
        for module in imported(path, tree):
            users.setdefault(module, set()).add(path.parts[0])
    for path in sorted(SUPPORT.glob("*.py")):
        if path.stem not in ("__init__", "worker", "forking_worker"):  # these are programs
            used_by = users.get(f"tests.support.{path.stem}", set())
            assert len(used_by) > 1, f"{path.name} is used by {sorted(used_by)}"


def test_shared_helpers_are_defined_once() -> None:
    for path, tree in parsed():
        if path.parts[0] != SUPPORT.name:
            functions = (ast.FunctionDef, ast.AsyncFunctionDef)
            defined = {node.name for node in ast.walk(tree) if isinstance(node, functions)}
            assert not defined & SHARED, f"{path} defines {sorted(defined & SHARED)}"


def test_until_returns_the_first_true_answer() -> None:
    answers, more = iter([0, "", "sync"]), iter([None, "async"])

    async def ask() -> str | None:
        return next(more)

    async def main() -> list[str]:
        return [await until(lambda: next(answers)), await until(ask)]

    assert asyncio.run(main()) == ["sync", "async"]
    answers = iter([0, 7])
    assert eventually(lambda: next(answers)) == 7


def test_missing_event_fails_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "DEADLINE", 0.01)
    hang = asyncio.Event
    with pytest.raises(AssertionError, match=r"not within 0\.01 s: the link is up"):
        asyncio.run(until(lambda: False, "the link is up"))
    with pytest.raises(AssertionError, match=r"not within 0\.01 s: an answer"):
        asyncio.run(until(lambda: hang().wait(), "an answer"))
    with pytest.raises(AssertionError, match=r"not within 0\.01 s: the process ends"):
        eventually(lambda: False, "the process ends")


def test_limit_of_time_is_met_by_one_of_a_few_attempts() -> None:
    slow, slower = iter([2.0, 0.5, 2.0]), iter([2.0] * waiting.ATTEMPTS + [0.5])
    assert_within(1.0, lambda: next(slow))
    assert next(slow) == 2.0
    with pytest.raises(AssertionError, match=r"not within 1 s in 4 attempts: \[2\.0, "):
        assert_within(1.0, lambda: next(slower))


def test_timeout_of_a_condition_is_not_the_deadline() -> None:
    async def ask() -> None:
        raise TimeoutError("the server")

    with pytest.raises(TimeoutError, match="the server"):
        asyncio.run(until(ask))


def test_free_ports_can_be_bound() -> None:
    first, last = free_port_range(3)
    for port in (free_port(), first, last):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", port))


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_owner_of_a_connection_is_the_process_that_accepted_it() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        ports = server.getsockname()[1], client.getsockname()[1]
        assert owner_of(*ports) is None
        with server.accept()[0]:
            assert owner_of(*ports) == os.getpid()
