"""The limits of the channels of one process: unread messages, their bytes, overshoot, expiry."""

import pytest

from adsum.integrations.django.layerlimits import MAX_UNREAD_BYTES, OVERSHOOT
from adsum.integrations.django.layermailbox import ChannelName
from adsum.integrations.django.localchannels import LocalChannels
from tests.support.waiting import eventually

CHANNEL = ChannelName("specific.process!1")
MEBIBYTE = bytes(1024 * 1024)


def channels(capacity: int, expiry: float = 60.0) -> LocalChannels:
    local = LocalChannels(expiry, lambda channel: capacity)
    local.create(CHANNEL)
    return local


def test_channel_refuses_messages_beyond_its_bytes() -> None:
    local, most = channels(1_000_000), MAX_UNREAD_BYTES // len(MEBIBYTE)
    assert all(local.put(CHANNEL, MEBIBYTE) for _ in range(most))
    assert not local.put(CHANNEL, b"")
    assert all(local.deliver(CHANNEL, MEBIBYTE) for _ in range(most * (OVERSHOOT - 1)))
    assert not local.deliver(CHANNEL, b"")


def test_messages_of_other_processes_are_accepted_up_to_twice_the_capacity() -> None:
    local = channels(10)
    assert all(local.deliver(CHANNEL, b"") for _ in range(20))
    assert not local.deliver(CHANNEL, b"")
    assert not local.put(CHANNEL, b"")


def test_full_channel_is_ready_again_once_half_of_it_was_read() -> None:
    local = channels(10)
    assert all(local.put("work", bytes([number])) for number in range(10))
    announced = [local.is_full("work")]
    for _ in range(5):
        local.take_held("work")
        announced.append(local.is_full("work"))
    assert announced == [True] * 5 + [False]


def test_message_that_expires_unread_makes_room_and_is_counted() -> None:
    local = channels(1, expiry=0.01)
    assert local.put(CHANNEL, b"")
    eventually(lambda: local.put(CHANNEL, b""), "room")
    assert local.sweep().expired[CHANNEL] >= 1


def test_message_to_a_normal_channel_is_accepted_only_if_it_is_or_was_received_on_here() -> None:
    local = channels(1)
    with pytest.raises(LookupError, match="nobody receives on channel 'work' in this process"):
        local.deliver("work", b"")
    assert len(local) == 1
    local.begin_receiving("work")
    local.end_receiving()
    assert local.deliver("work", b"")
    assert local.held() == {"work": 1}


def test_message_on_its_way_when_a_busy_receiver_expires_is_kept_for_another_process() -> None:
    local = channels(1, expiry=0.05)
    local.begin_receiving("work")
    eventually(lambda: "work" in local.sweep().changed, "the end of the receiver")
    assert not local.is_receiving("work")
    assert local.deliver("work", b"")
    assert local.held() == {"work": 1}


def test_channel_is_forgotten_after_the_end_of_its_receiver() -> None:
    def is_forgotten() -> bool:
        local.sweep()
        return len(local) == 1

    local = channels(1, expiry=0.05)
    local.begin_receiving("work")
    eventually(is_forgotten, "only the specific channel")
