"""`Attempts`: the attempts of one request, each on another instance. Sends and waits for nothing.

A failed attempt is repeated on another instance if that is safe:

- Nothing was sent, as when the connection is refused: always.
- Something was sent, so the instance may have acted on it: only if the request is idempotent.

The number of attempts is bounded, and no instance is tried twice. When an attempt is not repeated,
its error is the result of the request.
"""

from collections.abc import Callable, Iterator
from types import TracebackType

from adsum.arguments import refuse
from adsum.errors import NodeNotRunningError, NoInstanceError

from .instance import Instance
from .slot import Slot
from .use import Reports, Use

#: Types of errors.
Errors = tuple[type[BaseException], ...]
#: Picks an instance whose id is not among these; raises `NoInstanceError`.
Pick = Callable[[frozenset[str]], Slot]

#: Errors after which nothing was sent; a client's own ones are added to them.
UNSENT: Errors = (ConnectionRefusedError,)
#: Errors of an instance; a client's own ones are added to them. `TimeoutError` is one of them.
FAILURES: Errors = (OSError,)


class Attempt:
    """One attempt; yielded by `Attempts`.

    It counts for ``least_used`` until it ends: with `succeeded`, `failed`, `raised`, `release`, the
    block of a `with` statement, the next attempt, or when it is collected. The first end counts,
    later ones have no effect.

    In a `with` block an error that is repeated is suppressed, so the loop goes on. Any other error
    leaves the block.
    """

    def __init__(self, attempts: "Attempts", number: int, use: Use) -> None:
        #: Its number, from 1.
        self.number = number
        #: The instance to try.
        self.instance: Instance = use.instance
        self._attempts = attempts
        self._use = use

    def succeeded(self) -> None:
        """End the attempt: the instance has answered, with whatever status."""
        self._use.succeeded()

    def failed(self, error: BaseException | None = None, *, sent: bool) -> bool:
        """End the attempt: the instance has failed, and is skipped for a while.

        Args:
            error: The error, for `Attempts.errors`.
            sent: Whether any part of the request may have been sent.

        Returns:
            Whether another attempt follows. If not, raise the error.
        """
        if not self._use.open:
            return False
        self._use.failed()
        return self._attempts.repeats(error, sent=sent)

    def raised(self, error: BaseException) -> bool:
        """End the attempt by an error: a failure if it is one of the instance, else no outcome.

        Args:
            error: The error; its type decides, see `Services.attempts`.

        Returns:
            Whether another attempt follows. If not, raise the error.
        """
        if isinstance(error, self._attempts.unsent):
            return self.failed(error, sent=False)
        if isinstance(error, self._attempts.failures):
            return self.failed(error, sent=True)
        self.release()
        return False

    def release(self) -> None:
        """End the attempt without an outcome, as when the request was cancelled."""
        self._use.release()

    def __enter__(self) -> Instance:
        return self.instance

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if error is not None:
            return self.raised(error)
        self.succeeded()
        return False


class Attempts(Iterator[Attempt]):
    """An iterator of the attempts of one request; made by `Services.attempts`.

    The first attempt always comes, unless there is no instance. Another one follows only a failed
    one that is repeated. For one request, used by one task.

    Attributes:
        unsent: Errors after which nothing was sent.
        failures: Errors after which something may have been sent.
    """

    def __init__(
        self,
        pick: Pick,
        reports: Reports,
        *,
        most: int,
        idempotent: bool,
        unsent: Errors,
        failures: Errors,
    ) -> None:
        self.unsent = UNSENT + unsent
        self.failures = FAILURES + failures
        self._pick = pick
        self._reports = reports
        self._most = most
        self._idempotent = idempotent
        self._tried: frozenset[str] = frozenset()
        self._errors: list[BaseException] = []
        # The attempt under way, or the last one.
        self._current: Attempt | None = None
        # The instance of the next attempt, once the last one has failed.
        self._next: Slot | None = None

    @property
    def errors(self) -> tuple[BaseException, ...]:
        """The errors of the failed attempts so far."""
        return tuple(self._errors)

    def __next__(self) -> Attempt:
        if self._current is None:
            slot = self._pick(self._tried)
        elif self._next is not None:
            slot, self._next = self._next, None
        else:
            self._current.release()
            raise StopIteration
        number = 1 if self._current is None else self._current.number + 1
        self._tried |= {slot.instance.id}
        self._current = Attempt(self, number, Use(slot, self._reports))
        return self._current

    def repeats(self, error: BaseException | None, *, sent: bool) -> bool:
        """Note a failure of the current attempt; returns whether another attempt follows."""
        if error is not None:
            self._errors.append(error)
        if sent and not self._idempotent:
            return False
        if self._current is None or self._current.number >= self._most:
            return False
        try:
            self._next = self._pick(self._tried)
        except (NoInstanceError, NodeNotRunningError):
            return False
        return True


def checked_errors(field: str, errors: object) -> Errors:
    """Check types of errors; one type may be given without a tuple.

    Raises:
        ConfigurationError: They are something else.
    """
    found = errors if isinstance(errors, tuple) else (errors,)
    for one in found:
        if not (isinstance(one, type) and issubclass(one, Exception)):
            refuse(field, errors, "a type of errors, or a tuple of them")
    return found
