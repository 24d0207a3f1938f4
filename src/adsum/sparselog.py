"""Log lines that a client or a peer can cause, logged less and less often while they go on.

The first line of a kind is logged at once. Those within the next second are counted; the last of
them and their number are logged at its end. While they go on, the interval doubles up to a minute,
so one kind costs at most 8 lines in its first minute and one line a minute after that. A kind may
be split by keys, as by the addresses of clients, so that one address does not hide the others. The
number of keys is bounded: beyond it, the others share one series. A key makes room for another one
when it has been quiet for as long as a series needs to begin again; sooner, whoever has many
addresses would have a first line logged for each of them.

A line whose series is held back is logged by a timer of the running event loop. Without a running
loop, and after that loop was closed, it is counted in the next line after the interval, or logged
by `flush`. A forked child forgets what its parent has held back.

Tracebacks are safe too: `traceback_text` shows frames as usual, and quotes the text of an exception
that is not printable or too long.
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

#: Seconds between two lines of a series: at first, at most, and of quiet until it is the first
#: again. In between it doubles.
INTERVAL = 1.0
INTERVAL_MOST = 60.0
CALM = 120.0
#: Keys that have a series of their own.
MAX_KEYS = 64
#: Of a traceback: characters of an exception's text, frames of one exception (the innermost), and
#: exceptions in a chain or group.
MAX_TEXT, MAX_FRAMES, MAX_ERRORS = 300, 20, 6

#: Where the files of this package are.
_PACKAGE = os.path.join(os.path.dirname(__file__), "")

#: The key of the series that is shared by all keys without one.
_OTHERS = object()
#: Logs arguments, the number of lines that were not logged beside them, and an error.
_Emit = Callable[[tuple[object, ...], int, BaseException | None], None]


class SparseLog:
    """Logs one kind of line, each key ever less often.

    Args:
        logger: Where to log.
        message: The text, with one placeholder for each argument of `log`.
        level: Of its lines.

    Example:
        >>> import logging
        >>> refusals = SparseLog(logging.getLogger("adsum"), "a client at %s was refused")
        >>> refusals.log("192.0.2.1", key="192.0.2.1")
    """

    def __init__(self, logger: logging.Logger, message: str, level: int = logging.WARNING) -> None:
        self._logger = logger
        self._message = message
        self._level = level
        # In the order of their last line, so that the quietest are the first.
        self._series: dict[Hashable, _Series] = {}
        self._generation = process.generation

    def log(self, *args: object, key: Hashable = None, error: BaseException | None = None) -> None:
        """Log a line, now or as part of a count.

        Args:
            args: What the message says: numbers and texts, which may be kept for a minute. Foreign
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
        """Log the lines that are held back."""
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
    """Logs lines of many kinds; each message is a kind, and has a `SparseLog`.

    Args:
        logger: Where to log.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        # As many as there are calls in the source text: messages are literals.
        self._kinds: dict[tuple[int, str], SparseLog] = {}

    def log(
        self,
        level: int,
        message: str,
        *args: object,
        key: Hashable = None,
        error: BaseException | None = None,
    ) -> None:
        """Log a line, now or as part of a count; see `SparseLog.log`.

        Args:
            level: Of the line.
            message: A literal, with one placeholder for each of `args`.
            args: What the message says; foreign text must be quoted.
            key: Lines of one key are counted together.
            error: Its traceback is added to the line, if the line is not part of a count.
        """
        kind = self._kinds.get((level, message))
        if kind is None:
            kind = self._kinds[level, message] = SparseLog(self._logger, message, level)
        kind.log(*args, key=key, error=error)

    def warning(self, message: str, *args: object, key: Hashable = None) -> None:
        """Log a warning, now or as part of a count."""
        self.log(logging.WARNING, message, *args, key=key)

    def error(self, message: str, *args: object, key: Hashable = None) -> None:
        """Log an error, now or as part of a count."""
        self.log(logging.ERROR, message, *args, key=key)

    def crashed(
        self, message: str, *args: object, error: BaseException, within: Hashable = None
    ) -> None:
        """Log that code of the application raised: once with a traceback, then counted.

        Crashes at one line of the application are counted together, whoever caused them, so that
        no client hides a crash at another line. It makes no difference that both fail in the same
        line of a library or of adsum.

        Args:
            message: A literal, with one placeholder for each of `args`.
            args: What the message says; foreign text must be quoted.
            error: Its traceback is added to the first line.
            within: The code that was called; crashes in other code are counted separately. Clients
                must not be able to invent values.
        """
        key = (within, *_place_of(error))
        self.log(logging.ERROR, message, *args, key=key, error=error)

    def flush(self) -> None:
        """Log the lines that are held back."""
        for kind in self._kinds.values():
            kind.flush()


class _Series:
    """The lines of one key."""

    __slots__ = ("_count", "_emit", "_interval", "_last", "_logged_at", "_timer", "_until")

    def __init__(self, emit: _Emit) -> None:
        self._emit = emit
        self._count = 0
        self._last: tuple[object, ...] = ()
        # Runs while lines are held back, if there was a running loop to make it.
        self._timer: asyncio.TimerHandle | None = None
        self._interval = INTERVAL
        self._logged_at = self._until = float("-inf")

    @property
    def calm(self) -> bool:
        """Whether nothing is held back, and the next line would be the first again."""
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
        # In a context of its own: that of the caller may refer to a whole request.
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
    """Log one line and, where there is an error, its traceback with quoted texts.

    Args:
        logger: Where to log.
        level: Of the line.
        message: The text, with placeholders.
        args: What the message says; foreign text must be quoted.
        error: What happened.
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
    """The traceback of an exception; it contains no foreign text that is not printable, or long."""
    parts: list[str] = []
    for each in _chain(error):
        if each.__traceback__ is not None:
            parts.append("Traceback (most recent call last):")
            lines = traceback.format_tb(each.__traceback__, -MAX_FRAMES)
            parts += [line.rstrip("\n") for line in lines]
        parts.append(error_text(each))
    return "\n".join(parts)


def error_text(error: BaseException) -> str:
    """An exception as the last line of its traceback: type and text, quoted where necessary."""
    name = type(error).__qualname__
    try:
        text = str(error)
    except Exception:  # of the application
        return name
    return f"{name}: {printable(text, MAX_TEXT)}" if text else name


def _depth_of_caller() -> int:
    """How many frames above `log_line` this module ends."""
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename == __file__:
        frame, depth = frame.f_back, depth + 1
    return depth


def _place_of(error: BaseException) -> tuple[object, ...]:
    """The type of an exception, the outermost line outside of adsum, and the line that raised it.

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
    """An exception, the members of a group, and the causes, in the order of time."""
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
