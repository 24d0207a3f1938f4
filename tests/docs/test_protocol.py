"""The frames in docs/protocol.md are what the codec makes and reads."""

import re

import pytest

from adsum.bus import busmessages, limits
from adsum.replication.codec import decode, encode
from adsum.replication.messages import Heartbeat, ProtocolMessage
from adsum.transport.framing import HELLO, PAYLOAD, encode_frame
from adsum.transport.handshake import Handshake, decode_hello
from tests.support.markdown_pages import ROOT, blocks

PAGE = ROOT / "docs/protocol.md"
FRAMES = [block.text.strip().encode() for block in blocks(PAGE) if block.info.endswith(" frame")]


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


def test_messages_of_the_bus_are_those_of_the_page() -> None:
    rows = re.findall(r"^\| (\d) \| (\w+) \| (?:all|inbox|topic) \|", PAGE.read_text(), re.M)
    kinds = [(str(number), kind.__name__.lower()) for number, kind in enumerate(busmessages._KINDS)]
    assert rows == kinds


def test_limits_of_virtual_links_are_those_of_the_page() -> None:
    prose = " ".join(PAGE.read_text().split())
    kib = limits.KIB
    assert f"A receiver reports after {limits.REPORT_EVERY // kib} KiB" in prose
    assert f"more than {limits.WINDOW // kib} KiB in flight" in prose
    assert f"Casts are kept up to {limits.MAX_CASTS_KEPT // kib // kib} MiB" in prose
    assert f"then after {limits.RESEND_AFTER:g}," in prose
    assert f"After {limits.RESEND_PATIENCE:g} s with a gap" in prose
    assert f"refusals mean nothing for {limits.RETURN_GRACE:g} s" in prose
    assert f"while no more than {limits.TOPIC_BACKLOG // kib} KiB wait in the client" in prose
    assert f"while more than {limits.MAX_TOPIC_QUEUED // kib // kib} MiB are queued" in prose
    assert f"unsubscribes up to {limits.UNFOLLOW_AFTER:g} s after" in prose
    assert f"up to {limits.MAX_WAITING_BULLETINS // kib // kib} MiB of all lives" in prose
    assert f"others began, up to {limits.MAX_GREETINGS:,} are under way" in prose
    assert limits.PROBE_INTERVAL == 1 / 4
    assert limits.MAX_DIALS == 4
    assert f"for {limits.DIAL_PATIENCE:g} s at most" in prose
    assert f"fails {limits.DIAL_TIMEOUT:g} s after its beginning or the last answer" in prose
    assert limits.MAX_SILENT_DIALS == 2
    assert f"of the places; {limits.MAX_SILENT_WAITING} of them wait" in prose
