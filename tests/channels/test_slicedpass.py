"""A pass over many clients: slices within the budget, in order, and one end."""

import asyncio
from collections.abc import Sequence

import pytest

from adsum.channels.flow.fairshare import BUDGET, RECIPIENT, FairShare
from adsum.channels.flow.slicedpass import SLICE, WRITTEN, SlicedPass
from tests.support.waiting import until

from .leak_check import leak_checked, run


class Served:
    """The clients that passes served, and their ends."""

    def __init__(self, *, written: bool) -> None:
        self.written = written
        self.items: list[int] = []
        self.ends = 0

    def serve(self, items: Sequence[int]) -> int:
        self.items.extend(items)
        return len(items) if self.written else 0

    def end(self) -> None:
        self.ends += 1


@leak_checked
async def test_pass_serves_each_client_once_in_order_within_the_budget_of_a_turn() -> None:
    served, count = Served(written=True), 20 * SLICE
    other = FairShare()
    other.charge(10 * BUDGET)  # nothing is left of this turn
    work = SlicedPass(FairShare(), range(count), served.serve, served.end)
    work.run()
    before = len(served.items)
    assert before == SLICE
    most = 0
    while not work.done:
        await asyncio.sleep(0)
        most, before = max(most, len(served.items) - before), len(served.items)
    assert served.items == list(range(count))
    assert most <= BUDGET // (WRITTEN + RECIPIENT) + SLICE
    assert served.ends == 1


@pytest.mark.parametrize("written", [True, False])
def test_pass_that_left_frames_to_clients_finishes_behind_them(written: bool) -> None:
    async def main() -> None:
        served, order = Served(written=written), list[str]()
        client = FairShare()
        client.charge(10 * BUDGET)  # nothing is left of this turn
        client.call(BUDGET, lambda: order.append("client"))
        work = SlicedPass(FairShare(), range(3), served.serve, lambda: order.append("end"))
        work.run()
        assert served.items == [0, 1, 2]
        await until(lambda: len(order) == 2)
        assert order == (["end", "client"] if written else ["client", "end"])

    run(main())


@leak_checked
async def test_pass_that_fails_or_is_dropped_ends_once() -> None:
    served = Served(written=True)

    def fail(items: Sequence[int]) -> int:
        raise RuntimeError("it fails")

    failing = SlicedPass(FairShare(), range(3), fail, served.end)
    with pytest.raises(RuntimeError):
        failing.run()
    assert failing.done
    dropped = SlicedPass(FairShare(), range(3), served.serve, served.end)
    dropped.drop()
    dropped.drop()
    dropped.run_to_end()
    assert (served.ends, served.items) == (2, [])
