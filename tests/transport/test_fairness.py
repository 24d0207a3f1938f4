"""How much is handed over in one turn of the event loop, however much has arrived."""

import asyncio
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable

from adsum.transport.contract import Link
from adsum.transport.framing import FRAME_LIMIT, PAYLOAD, encode_frame
from adsum.transport.limits import TransportLimits
from adsum.transport.turns import FRAME_COST, TurnBudget
from tests.support.transports import Recorder, World, in_loop
from tests.support.waiting import until

BUDGET = TransportLimits().turn_budget


class CountingLoop(asyncio.SelectorEventLoop):
    """An event loop that knows how many turns it has made."""

    turns = 0

    def _run_once(self) -> None:
        self.turns += 1
        super()._run_once()  # type: ignore[misc]  # the one place where a turn begins


def in_counting_loop(world: World, scenario: Callable[[CountingLoop], Awaitable[None]]) -> None:
    loop = CountingLoop()

    async def run() -> None:
        try:
            await scenario(loop)
        finally:
            await world.close()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(run())


class Meter(Recorder):
    """Notes in which turn each frame was handed over."""

    def __init__(self, loop: CountingLoop) -> None:
        super().__init__()
        self.by_turn: dict[int, list[tuple[str, int]]] = defaultdict(list)
        self.on_frame = lambda link, payload: self.by_turn[loop.turns].append(
            (link.peer.name, len(payload))
        )

    @property
    def most_in_a_turn(self) -> int:
        return max(sum(size for _, size in turn) for turn in self.by_turn.values())


def test_turn_delivers_at_most_the_budget_and_one_frame(world: World) -> None:
    async def scenario(loop: CountingLoop) -> None:
        meter = Meter(loop)
        address = await world.listening("acceptor", meter)
        diallers = [Recorder() for _ in range(4)]
        for number, dialler in enumerate(diallers):
            await world.transport(f"dialler {number}", dialler).dial(address)

        for _ in range(40):
            for dialler in diallers:
                dialler.link.send(os.urandom(10_000))
        await until(lambda: len(meter.frames) == 160)

        assert meter.most_in_a_turn <= BUDGET + 10_000

    in_counting_loop(world, scenario)


def test_frames_that_inflate_beyond_the_budget_take_one_turn_each(world: World) -> None:
    async def scenario(loop: CountingLoop) -> None:
        meter = Meter(loop)
        address = await world.listening("acceptor", meter)
        dialler = Recorder()
        await world.transport("dialler", dialler).dial(address)

        for number in range(30):
            dialler.link.send(b"%d" % number + bytes(FRAME_LIMIT - 10))
        await until(lambda: len(meter.frames) == 30)

        assert all(len(turn) == 1 for turn in meter.by_turn.values())

    in_counting_loop(world, scenario)


def test_flood_of_empty_frames_is_rate_limited(world: World) -> None:
    async def scenario(loop: CountingLoop) -> None:
        meter = Meter(loop)
        raw = await world.proved_raw(await world.listening("acceptor", meter))

        raw.send(encode_frame(PAYLOAD, b"") * 10_000)
        await until(lambda: len(meter.frames) == 10_000)

        most = max(len(turn) for turn in meter.by_turn.values())
        assert most <= BUDGET // FRAME_COST + 1

    in_counting_loop(world, scenario)


def test_flood_on_one_link_does_not_delay_a_frame_on_another(world: World) -> None:
    async def scenario(loop: CountingLoop) -> None:
        meter = Meter(loop)
        address = await world.listening("acceptor", meter)
        flood = await world.proved_raw(address, "flood")
        quiet = await world.proved_raw(address, "quiet")

        flood.send(encode_frame(PAYLOAD, bytes(60_000)) * 60)
        quiet.send(encode_frame(PAYLOAD, b"small"))
        await until(lambda: len(meter.frames) == 61)

        assert [link.peer.name for link, _ in meter.frames].index("quiet") < 30

    in_counting_loop(world, scenario)


@in_loop
async def test_backpressure_pauses_reading_of_a_link_with_a_long_backlog(world: World) -> None:
    """What a peer can make this end hold is the backlog, one read and one frame."""
    acceptor = Recorder()
    limits = TransportLimits(receive_backlog=64 * 1024, turn_budget=1)
    raw = await world.proved_raw(await world.listening("acceptor", acceptor, limits=limits))
    held: list[int] = []

    def note(link: Link, payload: bytes) -> None:
        held.append(len(acceptor.link.connection.reader))

    acceptor.on_frame = note
    raw.send(encode_frame(PAYLOAD, os.urandom(5_000)) * 600)

    await until(lambda: len(acceptor.frames) == 600)
    assert max(held) <= 64 * 1024 + 2 * 256 * 1024


class Queue:
    """A source with numbered frames of a given cost."""

    def __init__(self, name: str, frames: int, log: list[str], cost: int = 10) -> None:
        self.waiting = False
        self.drained = 0
        self._left = frames
        self._name, self._log, self._cost = name, log, cost

    def deliver(self) -> int | None:
        if not self._left:
            return None
        self._left -= 1
        self._log.append(self._name)
        return self._cost

    def caught_up(self) -> None:
        self.drained += 1


@in_loop
async def test_idle_budget_delivers_in_the_same_turn() -> None:
    log: list[str] = []
    turns = TurnBudget(100)

    turns.offer(Queue("a", 3, log))

    assert log == ["a", "a", "a"]


@in_loop
async def test_frames_beyond_the_budget_take_turns_by_link() -> None:
    log: list[str] = []
    turns = TurnBudget(20)
    queues = [Queue(name, 4, log) for name in "abc"]

    for queue in queues:
        turns.offer(queue)
    assert log == ["a", "a"]
    await until(lambda: all(queue.drained for queue in queues))

    assert log == ["a", "a", *"abc", *"abc", *"bc", *"bc"]
    assert [queue.drained for queue in queues] == [1, 1, 1]


def test_charged_frames_take_one_turn_each() -> None:
    class Source:
        waiting = False

        def __init__(self, budget: TurnBudget, loop: CountingLoop) -> None:
            self.budget, self.loop = budget, loop
            self.turns: list[int] = []

        def deliver(self) -> int | None:
            if len(self.turns) == 10:
                return None
            self.turns.append(self.loop.turns)
            self.budget.charge(BUDGET)
            return FRAME_COST

        def caught_up(self) -> None:
            """Nothing is left."""

    loop = CountingLoop()

    async def main() -> None:
        budget = TurnBudget(BUDGET)
        source = Source(budget, loop)
        budget.offer(source)
        await until(lambda: len(source.turns) == 10)
        assert len(set(source.turns)) == 10

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
