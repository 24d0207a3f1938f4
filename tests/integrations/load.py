"""A steady load of requests to a service, and its outcome."""

import asyncio
from types import TracebackType
from typing import Self

from tests.support.waiting import until

from .clients import Client

#: Requests in flight at once.
CONCURRENCY = 10


class Load:
    """Sends requests until its block ends, each when an earlier one has ended.

    Args:
        client: Sends them.
        method: POST requests have a number as their body.
    """

    def __init__(self, client: Client, method: str = "GET") -> None:
        self._client = client
        self._method = method
        #: The servers that answered, in order.
        self.answers: list[str] = []
        #: The errors of failed requests.
        self.failures: list[Exception] = []
        self._number = 0
        # The requests that each task has ended.
        self._ended = [0] * CONCURRENCY
        self._tasks: list[asyncio.Task[None]] = []
        self._ending = False

    async def more(self, count: int) -> list[str]:
        """Wait for so many more answers; returns them."""
        start = len(self.answers)
        await until(lambda: len(self.answers) >= start + count, f"{count} more answers")
        return self.answers[start:]

    async def served_by(self, *names: str) -> None:
        """Wait until exactly these answer a hundred requests in a row."""
        await until(lambda: set(self.answers[-100:]) == set(names), f"answers of {names} alone")

    async def all_moved(self) -> None:
        """Wait until each of the requests in flight has ended."""
        start = list(self._ended)
        await until(
            lambda: all(now > before for now, before in zip(self._ended, start, strict=True)),
            "the end of each request in flight",
        )

    async def _send(self, which: int) -> None:
        while not self._ending:
            self._number += 1
            body = b"%d" % self._number if self._method == "POST" else None
            try:
                answer = await self._client.fetch("/", self._method, data=body)
            except self._client.errors as error:
                self.failures.append(error)
            else:
                assert answer.status == 200
                self.answers.append(answer.server)
            self._ended[which] += 1
            await asyncio.sleep(0.001)

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._send(one)) for one in range(CONCURRENCY)]
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ending = True
        await asyncio.gather(*self._tasks)
