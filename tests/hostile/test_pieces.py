"""Pieces of a hostile member: offsets and sizes that lie, and messages that never end."""

import pytest

from adsum.errors import ProtocolError
from adsum.replication.codec import decode
from adsum.replication.effects import Deliver
from adsum.replication.limits import MAX_UNFINISHED, PIECE
from adsum.replication.messages import Piece, Publish
from adsum.replication.state import Replica
from adsum.values.limits import MAX_DATA

from .attacked_engine import TO_ANN, TO_EVE, AttackedEngine
from .container_sizes import total_items

FULL = bytes(PIECE)


def first(size: int = MAX_DATA, number: int = 1, topic: str = "room") -> Piece:
    return Piece(number, topic, "event", size, 0, FULL[:size])


def delivered(attacked: AttackedEngine) -> list[Publish]:
    return [effect.message for effect in attacked.effects if isinstance(effect, Deliver)]


def held(attacked: AttackedEngine) -> int:
    """The bytes that the victim really holds."""
    unfinished = attacked.engine._reassembly._unfinished.values()
    return sum(len(piece) for message in unfinished for piece in message.pieces)


@pytest.mark.parametrize(
    "fields",
    [
        f'1,"t","e",{MAX_DATA + 1},0',
        f'1,"t","e",{2**63 - 1},0',
        f'1,"t","e",{MAX_DATA},{MAX_DATA}',
        f'1,"t","e",{MAX_DATA},{MAX_DATA - 1}',
        f'1,"t","e",{PIECE},{2**63 - 1}',
        f'1,"t","e",{MAX_DATA},-{PIECE}',
    ],
)
def test_piece_outside_its_message_is_rejected(fields: str) -> None:
    with pytest.raises(ProtocolError):
        decode(f"[10,{fields}]\n".encode() + FULL)


def test_small_pieces_of_a_large_message_are_rejected() -> None:
    for length in (0, 1, PIECE - 1):
        with pytest.raises(ProtocolError):
            decode(b'[10,1,"t","e",%d,0]\n' % MAX_DATA + bytes(length))


def test_endless_first_pieces_hold_the_memory_of_one() -> None:
    attacked = AttackedEngine()
    before = total_items(attacked.engine)
    for number in range(500):
        attacked.eve_says(first(number=number))
    assert held(attacked) == PIECE
    assert attacked.engine._reassembly._reserved == MAX_DATA
    assert total_items(attacked.engine) < before + 20
    assert attacked.engine.incomplete_messages == 499


def test_later_pieces_without_a_first_one_hold_no_memory() -> None:
    attacked = AttackedEngine()
    for offset in range(PIECE, MAX_DATA, PIECE):
        attacked.eve_says(Piece(1, "room", "event", MAX_DATA, offset, FULL))
    assert held(attacked) == 0
    assert attacked.engine.incomplete_messages == 0


def test_piece_with_another_topic_joins_no_message() -> None:
    attacked = AttackedEngine()
    attacked.eve_says(first(2 * PIECE), Piece(1, "hall", "event", 2 * PIECE, PIECE, FULL))
    assert delivered(attacked) == []
    assert held(attacked) == 0


def test_pieces_of_one_link_join_no_message_of_another() -> None:
    attacked = AttackedEngine()
    last = Piece(1, "room", "event", 2 * PIECE, PIECE, b"x" * PIECE)
    attacked.ann_says(first(2 * PIECE))
    attacked.eve_says(last)
    assert delivered(attacked) == []
    attacked.ann_says(Piece(1, "room", "event", 2 * PIECE, PIECE, FULL))
    assert delivered(attacked) == [Publish("room", "event", 2 * FULL)]


def test_members_can_hold_the_room_for_large_messages_while_they_send_more() -> None:
    attacked = AttackedEngine()
    links = range(100, 100 + MAX_UNFINISHED // MAX_DATA)
    for link in links:
        attacked.link(link, Replica(f"eve {link}", 1))
        attacked._hear(link, first())
    attacked.ann_says(first())
    assert attacked.engine.incomplete_messages == 1
    attacked.ann_says(Publish("room", "event", "{}"))
    assert delivered(attacked) == [Publish("room", "event", "{}")]
    attacked.wait(60.0)
    assert not set(links) & {link.id for link in attacked.engine._links}
    assert held(attacked) == attacked.engine._reassembly._reserved == 0
    attacked.ann_says(first(PIECE))
    assert delivered(attacked)[1:] == [Publish("room", "event", FULL)]


def test_link_that_ends_frees_the_memory_of_its_message() -> None:
    attacked = AttackedEngine()
    attacked.eve_says(first())
    attacked.engine.link_down(TO_EVE, attacked.now)
    assert held(attacked) == attacked.engine._reassembly._reserved == 0
    assert TO_ANN in attacked.engine._links
