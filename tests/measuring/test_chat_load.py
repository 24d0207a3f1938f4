"""The load generator of the chats counts frames, times and CPU as they are."""

import pytest
from benchmarks import websocket
from benchmarks.chat_dialects import DIALECTS, PHOENIX, SOCKETIO, stamp, stamp_of
from benchmarks.chat_load import ChatLoad, meaning_of, seconds_of, split_frames, used
from benchmarks.contenders import Contender, chat_site
from benchmarks.joined import resident

#: A shout and a reply as adsum sends them.
SHOUT = f'[null,null,"chat:room","shout",{{"text":"a","at":"{stamp(1_234)}"}}]'.encode()
REPLY = b'["1","2","chat:room","phx_reply",{"status":"ok","response":{"text":"a"}}]'


def server_frame(payload: bytes, head: int = websocket.TEXT) -> bytes:
    """A frame as servers send it, without a mask."""
    size = len(payload)
    if size < 126:
        return bytes((head, size)) + payload
    width = 2 if size < 1 << 16 else 8
    return bytes((head, 126 if width == 2 else 127)) + size.to_bytes(width, "big") + payload


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_frame_is_split_off_once_it_is_whole(size: int) -> None:
    payload = b"x" * size
    data = server_frame(payload)
    for cut in {1, 2, 3, len(data) // 2, len(data) - 1} - {0, len(data)}:
        if cut < len(data):
            assert split_frames(data[:cut]) == ([], data[:cut])
    rest = server_frame(b"y")[:1]
    assert split_frames(data + data + rest) == ([(websocket.TEXT, payload)] * 2, rest)


def test_messages_of_one_read_are_distinguished() -> None:
    frames = [
        (websocket.TEXT, SHOUT),
        (websocket.TEXT, REPLY),
        (websocket.PING, b"now"),
        (websocket.TEXT, b"2"),
    ]
    meaning = meaning_of(frames, SOCKETIO)
    assert (meaning.answers, meaning.stamps) == (1, (1_234,))
    pong, answer = websocket.frame(websocket.PONG, b"now"), websocket.frame(websocket.TEXT, b"3")
    assert meaning.replies == pong + answer


def test_close_of_a_server_ends_the_load() -> None:
    with pytest.raises(ConnectionError, match="closed"):
        meaning_of([(websocket.CLOSE, b"")], PHOENIX)


@pytest.mark.parametrize("name", DIALECTS)
def test_stamp_is_found_in_a_shout_alone(name: str) -> None:
    dialect = DIALECTS[name]
    text = dialect.shout.replace("{room}", "room").replace("{stamp}", stamp(98_765))
    assert stamp_of(text.encode()) == 98_765
    assert stamp_of(dialect.echo.encode()) is None


def test_cpu_is_read_behind_a_name_with_spaces_and_parentheses() -> None:
    stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 9 9 20 0 1 0 12345"
    assert seconds_of(stat, ticks=100) == 3.0


@pytest.mark.processes
def test_chat_is_measured_under_uvicorn() -> None:
    with chat_site(Contender("adsum", "adsum_chat", "phoenix"), 1) as site:
        load = ChatLoad()
        load.enter("phoenix", site.ports, 3, "room")
        replies = load.echo(0.1, site.processes)
        broadcasts = load.shout(1, 0.1, site.processes)
        paced = load.pace("shout", 50, 0.1, site.processes)
        cpu = used(site.pids)
        load.leave()
        assert replies.messages > 0
        assert broadcasts.messages > 0
        assert paced.messages == 3 * 5
        assert 0 < replies.p50 <= replies.p99
        assert cpu[0] > 0
        assert resident(site.pids[0]) > 1e7
