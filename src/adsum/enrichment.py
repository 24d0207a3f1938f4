"""Enrichment: the fields that the `fetch` function of an application adds to entries."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from adsum.activetime import active_timeout
from adsum.arguments import async_function, seconds_above_zero
from adsum.quoting import quoted
from adsum.sparselog import SparseLogger
from adsum.tasks import in_slices
from adsum.values.frozen import freeze
from adsum.watch import Entries, Extras

Fetch = Callable[[str, Entries], Awaitable[Mapping[str, Mapping[str, Any]]]]


class Enrichment:
    """Calls a `fetch` function; a failure costs the added fields and nothing else.

    Args:
        fetch: The function, called with a topic and its entries by key; None adds nothing.
        timeout: The most seconds of active time that a call may take.
        log: Logs failures.

    Raises:
        ConfigurationError: `fetch` is not an async function of two arguments, or the timeout is
            not above 0.
    """

    def __init__(self, fetch: Fetch | None, timeout: float, log: SparseLogger) -> None:
        if fetch is not None:
            async_function("fetch", fetch, "topic", "entries")
        seconds_above_zero("fetch_timeout", timeout)
        self._fetch = fetch
        self._timeout = timeout
        self._log = log

    def __bool__(self) -> bool:
        """Whether there is a `fetch` function."""
        return self._fetch is not None

    async def __call__(self, topic: str, entries: Entries) -> Extras:
        """Call the `fetch` function; returns its fields by key, none if it fails or times out."""
        if self._fetch is None or not entries:
            return {}
        work: asyncio.Future[Mapping[str, Mapping[str, Any]]] | None = None
        try:
            work = asyncio.ensure_future(self._fetch(topic, entries))
            # `fetch` itself is not awaited, as it may ignore its cancellation.
            with contextlib.suppress(TimeoutError):
                async with active_timeout(self._timeout):
                    await asyncio.wait({work})
            if not work.done() or work.cancelled():
                failure = "was cancelled" if work.done() else "took too long"
                text = "fetch for %s %s; its entries have no added fields"
                self._log.error(text, quoted(topic), failure, key=failure)
                return {}
            return await _frozen(work.result(), entries)
        except Exception as error:
            text = "fetch for %s failed; its entries have no added fields"
            self._log.crashed(text, quoted(topic), error=error)
            return {}
        finally:
            if work is not None:
                work.cancel()


async def _frozen(added: Mapping[str, Mapping[str, Any]], entries: Entries) -> Extras:
    """The added fields of keys that have an entry, read-only."""
    extras = Extras()
    async for part in in_slices([key for key in added if key in entries]):
        extras.update((key, freeze(dict(added[key]))) for key in part)
    return extras
