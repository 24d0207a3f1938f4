"""Lines that strangers can cause: ever fewer, bounded in number and length, and never forged."""

import asyncio
import contextvars
import gc
import json
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable

import pytest

from adsum import sparselog
from adsum.sparselog import (
    CALM,
    MAX_ERRORS,
    MAX_FRAMES,
    MAX_KEYS,
    SparseLog,
    SparseLogger,
    traceback_text,
)

from .support.transports import in_loop
from .support.waiting import until

logger = logging.getLogger("adsum.test")
NASTY = "x\n2026-01-01 ERROR forged \x1b[2J" + "y" * 65_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of the log, as its only item, which a test sets."""
    now = [0.0]
    monkeypatch.setattr("adsum.sparselog.time.monotonic", lambda: now[0])
    return now


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.mark.slow
@in_loop
async def test_repeated_line_is_logged_less_and_less_often_until_it_is_quiet(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparselog, "INTERVAL", 0.01)
    monkeypatch.setattr(sparselog, "INTERVAL_MOST", 0.2)
    monkeypatch.setattr(sparselog, "CALM", 0.5)
    refused = SparseLog(logger, "refused: %s")
    for _ in range(60):
        refused.log("a secret")
        await asyncio.sleep(0.01)  # as one peer with a wrong secret does
    assert len(caplog.records) <= 8
    refused.flush()
    await asyncio.sleep(0.6)
    caplog.clear()
    refused.log("one")
    refused.log("two")
    await until(lambda: len(caplog.records) == 2, "the interval is the first one again")
    refused.flush()


@in_loop
async def test_lines_within_the_interval_are_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparselog, "INTERVAL", 0.02)
    refused = SparseLog(logger, "refused: %s", logging.ERROR)

    for number in range(10):
        refused.log(f"number {number}")
    assert messages(caplog) == ["refused: number 0"]
    await until(lambda: len(caplog.records) == 2)
    refused.log("late")
    refused.flush()
    refused.flush()

    assert messages(caplog)[1:] == ["refused: number 9 (and 8 more like it)", "refused: late"]
    assert all(record.levelno == logging.ERROR for record in caplog.records)


def test_log_keys_are_counted_separately_and_memory_bound(
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sparselog, "INTERVAL", 3600.0)  # however slow the machine is
    refused = SparseLog(logger, "refused: %s")
    for address in range(10_000):
        refused.log(address, key=address)
    assert messages(caplog) == [f"refused: {address}" for address in range(MAX_KEYS + 1)]
    caplog.clear()
    refused.flush()
    assert messages(caplog) == [f"refused: 9999 (and {10_000 - MAX_KEYS - 2} more like it)"]


def test_quiet_log_keys_are_evicted_first(
    caplog: pytest.LogCaptureFixture, clock: list[float]
) -> None:
    refused = SparseLog(logger, "refused: %s")
    for address in range(3 * MAX_KEYS):
        if address % MAX_KEYS == 0:
            clock[0] += CALM + 1
        refused.log(address, key=address)
    assert len(caplog.records) == 3 * MAX_KEYS


def test_many_addresses_that_change_do_not_fill_the_log(
    caplog: pytest.LogCaptureFixture, clock: list[float]
) -> None:
    refused = SparseLog(logger, "refused: %s")
    seconds, rate = int(CALM) // 2, 100
    for number in range(seconds * rate):
        clock[0] += 1 / rate
        refused.log(number, key=number)
        if number % rate == 0:
            refused.log("the same", key="the same")
    assert len(messages(caplog)) <= MAX_KEYS + 2 * 8
    assert sum("the same" in line for line in messages(caplog)) <= 8


def test_without_a_running_loop_the_count_is_logged_with_the_next_line(
    caplog: pytest.LogCaptureFixture, clock: list[float]
) -> None:
    refused = SparseLog(logger, "refused: %s")
    for number in range(5):
        refused.log(number)
    clock[0] = 1.5
    refused.log("later")
    assert messages(caplog) == ["refused: 0", "refused: later (and 4 more like it)"]


def test_lines_of_one_key_in_a_minute_are_bounded(
    caplog: pytest.LogCaptureFixture, clock: list[float]
) -> None:
    refused = SparseLog(logger, "refused: %s")
    counts = []
    for _ in range(5):
        before = len(caplog.records)
        for _ in range(600):
            clock[0] += 0.1
            refused.log("again")
        counts.append(len(caplog.records) - before)
    assert counts[0] <= 8
    assert max(counts[1:]) == 1


@in_loop
async def test_line_that_may_be_held_back_does_not_keep_the_context_of_its_caller() -> None:
    class Request:
        """A large object of a caller."""

    request = contextvars.ContextVar[Request]("request")
    refused = SparseLog(logger, "refused: %s")

    async def handle() -> "weakref.ref[Request]":
        made = Request()
        request.set(made)
        refused.log("one")
        return weakref.ref(made)

    made = await asyncio.create_task(handle())
    await asyncio.sleep(0)  # the task that has ended is held until the next turn
    gc.collect()
    assert made() is None
    refused.flush()


def test_closed_loop_does_not_hold_lines_back_forever(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = SparseLog(logger, "refused: %s")

    async def log(detail: str) -> None:
        refused.log(detail)

    asyncio.run(log("one"))
    asyncio.run(log("two"))
    began = time.monotonic()
    monkeypatch.setattr("adsum.sparselog.time.monotonic", lambda: began + 30)
    asyncio.run(log("three"))
    assert messages(caplog) == ["refused: one", "refused: three (and 1 more like it)"]


def test_lines_can_be_logged_in_a_thread_without_a_loop(caplog: pytest.LogCaptureFixture) -> None:
    refused = SparseLog(logger, "refused: %s")
    thread = threading.Thread(target=refused.log, args=("one",))
    thread.start()
    thread.join()
    assert messages(caplog) == ["refused: one"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_forked_child_logs_its_own_lines_and_not_those_held_back_by_its_parent() -> None:
    def in_child() -> bool:
        lines: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
        logger.addHandler(handler)
        refused.flush()
        refused.log("in the child")
        refused.log("held back")
        refused.flush()
        return lines == ["refused: in the child", "refused: held back"]

    refused = SparseLog(logger, "refused: %s")
    refused.log("one")
    refused.log("two")
    assert succeeds_in_child(in_child)


def succeeds_in_child(work: Callable[[], bool]) -> bool:
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_level_that_is_off_counts_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "adsum.test")
    hidden = SparseLog(logger, "hidden: %s", logging.DEBUG)
    hidden.log("one")
    caplog.set_level(logging.DEBUG, "adsum.test")
    hidden.log("two")
    assert messages(caplog) == ["hidden: two"]


def test_only_the_first_line_of_a_series_has_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    crashed = SparseLog(logger, "crashed")
    for _ in range(3):
        try:
            {}["user"]  # type: ignore[index]
        except KeyError as error:
            crashed.log(error=error)
    crashed.flush()
    assert messages(caplog) == ["crashed", "crashed (and 1 more like it)"]
    first, second = caplog.records
    assert (first.filename, first.funcName) == (
        "test_sparselog.py",
        "test_only_the_first_line_of_a_series_has_a_traceback",
    )
    assert first.exc_info is not None
    assert first.exc_text is not None
    assert first.exc_text.endswith("KeyError: 'user'")
    assert second.exc_info is None


def test_crashes_are_counted_by_the_line_of_code_that_raised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def crash(text: str) -> None:
        if text == "other":
            raise ValueError(text)
        raise ValueError(text)

    log = SparseLogger(logger)
    for text in ["one", "two", "other", "three"]:
        try:
            crash(text)
        except ValueError as error:
            log.crashed("a handler crashed: %s", text, error=error)
    log.flush()
    assert messages(caplog) == [
        "a handler crashed: one",
        "a handler crashed: other",
        "a handler crashed: three (and 1 more like it)",
    ]


def test_crashes_of_two_handlers_in_one_line_of_a_library_have_a_traceback_each(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def first() -> None:
        json.loads("{")

    def second() -> None:
        json.loads("{")

    log = SparseLogger(logger)
    for handler in [first, second, first]:
        with pytest.raises(json.JSONDecodeError) as caught:
            handler()
        called = caught.value.with_traceback(caught.tb.tb_next)
        log.crashed("%s crashed", handler.__name__, error=called)
    log.flush()
    assert messages(caplog) == ["first crashed", "second crashed", "first crashed"]
    assert [record.exc_info is not None for record in caplog.records] == [True, True, False]


def test_crash_within_other_code_has_a_traceback_of_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = SparseLogger(logger)
    error = TypeError("reply must be a dict")
    for handler in ["say", "shout", "say"]:
        log.crashed("%s crashed", handler, error=error, within=handler)
    log.flush()
    assert [record.exc_info is not None for record in caplog.records] == [True, True, False]


def raise_deep(depth: int, text: str) -> None:
    if not depth:
        raise ValueError(text)
    raise_deep(depth - 1, text)


@pytest.mark.parametrize("kind", [ValueError, KeyError, RuntimeError, UnicodeError])
def test_traceback_contains_no_raw_text_of_the_exception(kind: type[Exception]) -> None:
    try:
        try:
            raise kind(NASTY)
        except Exception as error:
            raise RuntimeError(f"wraps {NASTY}") from error
    except RuntimeError as error:
        text = traceback_text(error)
    assert "\x1b" not in text
    assert not any(line.startswith("2026") for line in text.splitlines())
    assert len(text) < 2000
    assert "in test_traceback_contains_no_raw_text" in text
    assert text.count("Traceback") == 2


def test_traceback_is_bounded_in_frames_and_exceptions() -> None:
    error: Exception | None = None
    for _ in range(50):
        try:
            raise_deep(100, NASTY)
        except ValueError as caught:
            caught.__cause__ = error
            error = caught
    assert error is not None
    lines = traceback_text(ExceptionGroup("several", [error] * 40)).splitlines()
    assert len(lines) <= MAX_ERRORS * (3 * MAX_FRAMES + 2)
    assert lines[-1] == "ExceptionGroup: several (40 sub-exceptions)"


def test_traceback_of_a_cause_that_leads_back_ends() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert traceback_text(first) == "ValueError: second\nValueError: first"


def test_exception_whose_text_raises_is_logged_by_its_type() -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert traceback_text(BrokenError()).endswith("BrokenError")


def test_formatters_print_the_quoted_traceback() -> None:
    lines: list[str] = []
    handler = logging.StreamHandler(sys.stderr)
    handler.emit = lambda record: lines.append(handler.format(record))  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        raise ValueError(NASTY)
    except ValueError as error:
        SparseLog(logger, "crashed").log(error=error)
    finally:
        logger.removeHandler(handler)
    assert "\x1b" not in lines[0]
    assert len(lines[0]) < 1000
