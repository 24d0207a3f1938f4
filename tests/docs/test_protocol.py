"""The frames in docs/protocol.md are what the codec makes and reads."""

import pytest

from adsum.replication.codec import decode, encode
from adsum.replication.messages import Heartbeat, ProtocolMessage
from adsum.transport.framing import HELLO, PAYLOAD, encode_frame
from adsum.transport.handshake import Handshake, decode_hello
from tests.support.markdown_pages import ROOT, blocks

PAGE = ROOT / "docs/protocol.md"
FRAMES = [
    block.text.strip().encode()
    for block in blocks(PAGE)
    if block.info in ("json frame", "text frame")
]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame[:2].decode())
def test_documented_frame_equals_the_encoded_message(frame: bytes) -> None:
    assert encode(decode(frame)) == frame


def test_every_message_has_a_frame() -> None:
    assert {type(decode(frame)) for frame in FRAMES} == set(ProtocolMessage.__args__)


def test_hello_is_the_one_that_a_handshake_sends() -> None:
    (shown,) = [block.text.strip() for block in blocks(PAGE) if block.info == "json hello"]
    identity, _, _ = decode_hello(shown.encode())
    counting = bytes(range(32))
    dialler = Handshake(
        identity, dialling=True, secret=b"any", nonce=lambda count: counting[:count]
    )
    assert encode_frame(HELLO, shown.encode()) == dialler.start()


def test_heartbeat_has_the_bytes_that_the_page_shows() -> None:
    shown = encode_frame(PAYLOAD, encode(Heartbeat(12, 9, 10488960))).hex(" ")
    text = PAGE.read_text()
    assert shown in " ".join(text.split()), shown
