"""Messages on topics that wait for a link, in `WaitingBulletins`: bound, order and shares."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from adsum.bus.busmessages import Bulletin
from adsum.bus.limits import MAX_WAITING_BULLETINS
from adsum.bus.waitingbulletins import WaitingBulletins, _size
from adsum.transport.framing import FRAME_LIMIT

LIVES = [bytes([number]) * 8 for number in range(4)]
#: A sender, and the bytes of its next message: a few large ones fill all room.
MESSAGE = st.tuples(st.sampled_from(LIVES), st.sampled_from([0, 10_000, 100_000, FRAME_LIMIT]))


@given(st.lists(MESSAGE, max_size=60))
def test_sender_within_an_equal_share_loses_nothing_and_all_bytes_are_bounded(
    messages: list[tuple[bytes, int]],
) -> None:
    waiting = WaitingBulletins()
    sent = defaultdict[bytes, list[Bulletin]](list)
    for number, (life, size) in enumerate(messages, 1):
        bulletin = Bulletin(0, number, (), bytes(size))
        sent[life].append(bulletin)
        waiting.add(life, bulletin)
        assert waiting.stored <= MAX_WAITING_BULLETINS
    taken = {life: waiting.take(life) for life in sent}
    assert waiting.stored == 0
    for life, bulletins in sent.items():
        assert taken[life] == [one for one in bulletins if one in taken[life]]
        if sum(map(_size, bulletins)) <= MAX_WAITING_BULLETINS // len(sent):
            assert taken[life] == bulletins


def test_sender_whose_messages_were_all_dropped_waits_no_more() -> None:
    waiting = WaitingBulletins()
    waiting.add(LIVES[0], Bulletin(0, 7, (), bytes(MAX_WAITING_BULLETINS)))
    assert LIVES[0] not in waiting
    assert (waiting.last_of(LIVES[0]), waiting.stored, waiting.take(LIVES[0])) == (0, 0, [])
