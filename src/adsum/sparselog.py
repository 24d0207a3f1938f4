"""Rate-limited logging of lines that a client or a peer can cause.

The first line of a kind is logged at once. Lines within the next second are counted; at its end the
last one is logged with their number. While lines continue, the interval doubles up to a minute, so
one kind costs at most 8 lines in its first minute and one line a minute after that. A kind may be
split by keys, such as client addresses, so that one address does not hide the others. The number of
keys is bounded: beyond it, all other keys share one series. A key is removed for another one only
after `CALM` seconds of quiet, when its series would begin again anyway; if it were removed sooner,
a client with many addresses could have a first line logged for each of them.

A timer of the running event loop logs the lines held back in a series. Without a running loop, and
after that loop was closed, they are counted in the next line after the interval, or logged by
`flush`. A forked child drops the lines that its parent has held back.

Tracebacks are safe, too: `traceback_text` shows frames as usual, and quotes an exception's text if
it is not printable or too long.
"""

import asyncio
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Hashable, Iterator
from contextvars import Context

from adsum.forks import process
from adsum.quoting import printable

#: Seconds between the first two lines of a series; doubled at each further line, up to
#: `INTERVAL_MOST`.
INTERVAL = 1.0
#: Seconds between two lines of a series at most.
INTERVAL_MOST = 60.0
#: Seconds of quiet after which a series begins again with `INTERVAL`.
CALM = 120.0
#: Keys that have a series of their own.
MAX_KEYS = 64
#: Limits of a traceback: characters of an exception's text, frames of one exception (the innermost
#: are shown), and exceptions in a chain or group.
MAX_TEXT, MAX_FRAMES, MAX_ERRORS = 300, 20, 6

#: The directory of this package, with a trailing separator.
_PACKAGE = os.path.join(os.path.dirname(__file__), "")

#: The key of the series that all keys beyond `MAX_KEYS` share.
_OTHERS = object()
#: Logs a line with these arguments, the number of counted lines, and an error.
_Emit = Callable[[tuple[object, ...], int, BaseException | None], None]


class SparseLog:
    """Logs one kind of line, rate-limited for each key.

    Args:
        logger: The logger to use.
        message: The text, with one placeholder for each argument of `log`.
        level: The level of its lines.

    Example:
        >>> import logging
        >>> refusals = SparseLog(logging.getLogger("adsum"), "a client at %s was refused")
        >>> refusals.log("192.0.2.1", key="192.0.2.1")
    """

    def __init__(self, logger: logging.Logger, message: str, level: int = logging.WARNING) -> None:
        self._logger = logger
        self._message = message
        self._level = level
        # Series by key, least recently used first.
        self._series: dict[Hashable, _Series] = {}
        self._generation = process.generation

    def log(self, *args: object, key: Hashable = None, error: BaseException | None = None) -> None:
        """Log a line, at once or as part of a count.

        Args:
            args: Numbers and texts for the placeholders, which may be kept for a minute. Foreign
                text must be quoted, see `adsum.quoting`.
            key: Lines of one key are counted together.
            error: Its traceback is added to the line, if the line is not part of a count.
        """
        if not self._logger.isEnabledFor(self._level):
            return
        if self._generation != process.generation:
            self._series.clear()  # the parent logs the lines held there
            self._generation = process.generation
        self._of(key).log(args, error)

    def flush(self) -> None:
        """Log the lines that are held back, without waiting for the interval."""
        if self._generation == process.generation:
            for series in self._series.values():
                series.flush()

    def _of(self, key: Hashable) -> "_Series":
        series = self._series.pop(key, None)
        if series is None:
            if len(self._series) >= MAX_KEYS:
                self._forget_calm()
            if len(self._series) >= MAX_KEYS:
                key = _OTHERS
            series = self._series.pop(key, None) or _Series(self._emit)
        self._series[key] = series
        return series

    def _forget_calm(self) -> None:
        calm = [key for key, series in self._series.items() if series.calm]
        for key in calm:
            del self._series[key]

    def _emit(self, args: tuple[object, ...], more: int, error: BaseException | None) -> None:
        message = self._message
        if more:
            message, args = message + " (and %d more like it)", (*args, more)
        log_line(self._logger, self._level, message, args, error)


class SparseLogger:
    """Logs lines of many kinds, rate-limited; each message is a kind with its own `SparseLog`.

    Args:
        logger: The logger to use.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        # Bounded by the number of calls in the source text, because messages are literals.
        self._kinds: dict[tuple[int, str], SparseLog] = {}

    def log(
        self,
        level: int,
        message: str,
        *args: object,
        key: Hashable = None,
        error: BaseException | None = None,
    ) -> None:
        """Log a line, at once or as part of a count; see `SparseLog.log`.

        Args:
            level: The level of the line.
            message: A literal, with one placeholder for each of `args`.
            args: The values of the placeholders; foreign text must be quoted.
            key: Lines of one key are counted together.
            error: Its traceback is added to the line, if the line is not part of a count.
        """
        kind = self._kinds.get((level, message))
        if kind is None:
            kind = self._kinds[level, message] = SparseLog(self._logger, message, level)
        kind.log(*args, key=key, error=error)

    def warning(self, message: str, *args: object, key: Hashable = None) -> None:
        """Log a warning, at once or as part of a count."""
        self.log(logging.WARNING, message, *args, key=key)

    def error(self, message: str, *args: object, key: Hashable = None) -> None:
        """Log an error, at once or as part of a count."""
        self.log(logging.ERROR, message, *args, key=key)

    def crashed(
        self, message: str, *args: object, error: BaseException, within: Hashable = None
    ) -> None:
        """Log a crash of application code: the first with a traceback, further ones counted.

        Crashes at one line of the application are counted together, regardless of the client that
        caused them, so that no client hides a crash at another line. Crashes at two lines of the
        application count separately even if both fail in one line of a library or of adsum.

        Args:
            message: A literal, with one placeholder for each of `args`.
            args: The values of the placeholders; foreign text must be quoted.
            error: Its traceback is added to the first line.
            within: The code that was called; crashes in other code are counted separately. Clients
                must not be able to invent values.
        """
        key = (within, *_place_of(error))
        self.log(logging.ERROR, message, *args, key=key, error=error)

    def flush(self) -> None:
        """Log the lines that are held back, without waiting for the interval."""
        for kind in self._kinds.values():
            kind.flush()


class _Series:
    """The lines of one key: their count and the interval that holds them back."""

    __slots__ = ("_count", "_emit", "_interval", "_last", "_logged_at", "_timer", "_until")

    def __init__(self, emit: _Emit) -> None:
        self._emit = emit
        self._count = 0
        self._last: tuple[object, ...] = ()
        # Runs while lines are held back, if there was a running loop to schedule it.
        self._timer: asyncio.TimerHandle | None = None
        self._interval = INTERVAL
        self._logged_at = self._until = float("-inf")

    @property
    def calm(self) -> bool:
        """Whether no line is held back and the next line would begin the series again."""
        return not self._count and time.monotonic() - self._logged_at > CALM

    def log(self, args: tuple[object, ...], error: BaseException | None) -> None:
        if time.monotonic() < self._until:
            self._count += 1
            self._last = args
            return
        more, self._count = self._count, 0  # of a loop that has ended, or of none
        self._cancel()
        self._hold()
        self._emit(args, more, error)

    def flush(self) -> None:
        self._cancel()
        count, self._count = self._count, 0
        if count:
            self._emit(self._last, count - 1, None)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _hold(self) -> None:
        now = time.monotonic()
        first = now - self._logged_at > CALM
        self._interval = INTERVAL if first else min(2 * self._interval, INTERVAL_MOST)
        self._logged_at, self._until = now, now + self._interval
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        # In an empty context, because the caller's may refer to a whole request.
        self._timer = loop.call_later(self._interval, self._release, context=Context())

    def _release(self) -> None:
        self._timer = None
        self._until = float("-inf")
        if self._count:
            self.flush()
            self._hold()


def log_line(
    logger: logging.Logger,
    level: int,
    message: str,
    args: tuple[object, ...] = (),
    error: BaseException | None = None,
) -> None:
    """Log one line and, if there is an error, its traceback with quoted texts.

    Args:
        logger: The logger to use.
        level: The level of the line.
        message: The text, with placeholders.
        args: The values of the placeholders; foreign text must be quoted.
        error: The exception to log with its traceback, or None.
    """
    if not logger.isEnabledFor(level):
        return
    info = None if error is None else (type(error), error, error.__traceback__)
    file, line, function, _ = logger.findCaller(stacklevel=_depth_of_caller())
    record = logger.makeRecord(logger.name, level, file, line, message, args, info, function)
    if error is not None:
        record.exc_text = traceback_text(error)  # formatters do not make another one then
    logger.handle(record)


def traceback_text(error: BaseException) -> str:
    """The traceback of an exception, with foreign text quoted if it is unprintable or long."""
    parts: list[str] = []
    for each in _chain(error):
        if each.__traceback__ is not None:
            parts.append("Traceback (most recent call last):")
            lines = traceback.format_tb(each.__traceback__, -MAX_FRAMES)
            parts += [line.rstrip("\n") for line in lines]
        parts.append(error_text(each))
    return "\n".join(parts)


def error_text(error: BaseException) -> str:
    """The last line of a traceback: type and text of the exception, quoted where necessary."""
    name = type(error).__qualname__
    try:
        text = str(error)
    except Exception:  # of the application
        return name
    return f"{name}: {printable(text, MAX_TEXT)}" if text else name


def _depth_of_caller() -> int:
    """The number of frames from `log_line` up to the first caller outside this module."""
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename == __file__:
        frame, depth = frame.f_back, depth + 1
    return depth


def _place_of(error: BaseException) -> tuple[object, ...]:
    """The place of a crash: exception type, outermost line outside adsum, and raising line.

    Two handlers that fail in one line of a library are two places. Recursion adds no places.
    """
    outermost = innermost = None
    step = error.__traceback__
    while step is not None:
        innermost = (step.tb_frame.f_code.co_filename, step.tb_lineno)
        if outermost is None and not innermost[0].startswith(_PACKAGE):
            outermost = innermost
        step = step.tb_next
    return type(error), outermost, innermost


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception, its group members and its causes, in chronological order."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting and len(found) < MAX_ERRORS:
        each = waiting.pop(0)
        if any(each is other for other in found):
            continue
        found.append(each)
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions[:MAX_ERRORS]
        cause = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
        waiting += [cause] if cause is not None else []
    return reversed(found)
