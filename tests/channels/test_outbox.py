"""What waits to be sent to one client: in order, bounded, partly made when its turn comes."""

from hypothesis import given
from hypothesis import strategies as st

from adsum.channels.flow.outbox import Closing, Outbox
from adsum.channels.wire.frames import Wire
from adsum.channels.wire.prepared import Prepared
from tests.support.effort import examples


class Mark:
    """Makes a frame, or none, when its turn comes."""

    def __init__(self, text: str | None) -> None:
        self.text = text

    def frame(self) -> Wire | None:
        return self.text


class Filled:
    """How often the outbox said that there is something."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def drain(outbox: Outbox) -> list[Wire | Prepared]:
    frames = list[Wire | Prepared]()
    while (frame := outbox.take()) is not None:
        frames.append(frame)
    return frames


def test_outbox_keeps_order_and_marks_make_frames_when_due() -> None:
    outbox, mark = Outbox(100, Filled(), Filled()), Mark("early")
    assert outbox.put("a")
    outbox.put_source(mark)
    assert outbox.put(b"b")
    outbox.put_source(Mark(None))
    mark.text = "late"
    assert drain(outbox) == ["a", "late", b"b"]
    assert (outbox.frames, outbox.sent) == (3, 6)
    assert not outbox


def test_outbox_signals_when_it_stops_being_empty() -> None:
    filled = Filled()
    outbox = Outbox(100, filled, Filled())
    outbox.put("a")
    outbox.put("b")
    assert filled.times == 1
    drain(outbox)
    outbox.put_source(Mark("c"))
    outbox.put("d")
    assert filled.times == 2


def test_outbox_overflow_is_reported_beyond_the_limit_and_one_frame() -> None:
    outbox = Outbox(10, Filled(), Filled())
    assert outbox.put("x" * 1000)
    assert not outbox.put("y")
    drain(outbox)
    assert outbox.put("x" * 5)
    assert outbox.put("x" * 5)
    assert not outbox.put("x")


def test_removed_mark_makes_no_frame() -> None:
    outbox, gone = Outbox(100, Filled(), Filled()), Mark("gone")
    outbox.put("a")
    outbox.put_source(gone)
    outbox.put_source(Mark("b"))
    outbox.discard(gone)
    outbox.discard(gone)
    assert drain(outbox) == ["a", "b"]


def test_outbox_end_follows_or_replaces_queued_frames() -> None:
    for drop, left in (False, ["a"]), (True, []):
        outbox = Outbox(10, Filled(), Filled())
        outbox.put("a")
        outbox.close(Closing(1000, ""), drop=drop)
        outbox.close(Closing(1001, ""))
        assert outbox.put("b")
        outbox.put_source(Mark("c"))
        assert drain(outbox) == left
        assert outbox.closing == Closing(1000, "")


def test_end_of_an_empty_outbox_is_signalled_at_once() -> None:
    filled = Filled()
    Outbox(10, filled, Filled()).close(Closing(1000, ""))
    assert filled.times == 1


def test_outbox_half_drained_signals_end_of_backpressure_once() -> None:
    drained = Filled()
    outbox = Outbox(10, Filled(), drained)
    for _ in range(4):
        outbox.put("xxx" if not outbox else "xx")
    assert outbox.half_full
    for times in 0, 1, 1, 1:
        outbox.take()
        assert (drained.times, outbox.half_full) == (times, times == 0)


def test_outbox_end_that_drops_queued_frames_overrides_an_earlier_end() -> None:
    outbox = Outbox(10, Filled(), Filled())
    outbox.put("a")
    outbox.close(Closing(1001, ""))
    outbox.close(Closing(1006, ""), drop=True)
    assert drain(outbox) == []
    assert outbox.closing == Closing(1001, "")


@examples(100)
@given(st.integers(1, 50), st.lists(st.none() | st.text("x", max_size=20), max_size=50))
def test_outbox_memory_bound_is_the_limit_and_one_frame(
    limit: int, steps: list[str | None]
) -> None:
    outbox, expected = Outbox(limit, Filled(), Filled()), list[str]()
    for step in steps:
        if step is None:
            taken = outbox.take()
            assert taken == (expected.pop(0) if expected else None)
        elif outbox.put(step):
            expected.append(step)
        waiting = sum(map(len, expected))
        assert waiting <= limit or len(expected) == 1 or waiting - len(expected[0]) == 0
    assert drain(outbox) == expected
