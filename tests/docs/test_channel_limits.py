"""docs/channels.md has every limit of channels, with its true default."""

import re
from dataclasses import fields

from adsum.channels import Limits
from adsum.channels.broadcasts import MAX_BROADCAST
from adsum.channels.carriers import longpoll, noderequests, session, textqueue, tokens
from adsum.channels.clientadmission import CONNECT_TIMEOUT
from adsum.channels.flow.fairshare import _SECOND, BUDGET, WORK
from adsum.channels.process import GRACE
from adsum.channels.socket import TIMEOUT
from adsum.channels.wire.payloads import MAX_PUSH
from adsum.values.limits import MAX_PAYLOAD
from tests.support.markdown_pages import ROOT

MIB = 1024 * 1024
PAGE = (ROOT / "docs/channels.md").read_text()


def test_every_limit_is_in_the_table_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", PAGE, re.MULTILINE))
    assert rows == {field.name: str(field.default) for field in fields(Limits)}


def test_fixed_limits_are_as_said() -> None:
    prose = " ".join(PAGE.split())
    assert f"at most {MAX_PUSH // 1024**2} MiB as JSON text or bytes" in prose
    assert f"at most {MAX_PAYLOAD // 1024} KiB as JSON text" in prose
    assert f"or {round(MAX_BROADCAST / 1024)} KiB of bytes" in prose
    assert f"have {GRACE:g} seconds" in prose
    assert f"{longpoll._MAX_BODY_FRAMES} frames of the largest size" in prose
    assert f"{longpoll.BODY_PATIENCE:g} s in which" in prose
    lifetimes = f"{session.LIFETIME:g} s; {session.LIFETIME_IF_BROKEN:g} s in which"
    assert f"the next poll after an answer; after a broken poll | {lifetimes}" in prose
    assert f"another worker is passed | {noderequests.MAX_QUESTION // MIB} MiB" in prose
    assert f"under way to one worker | {textqueue.MAX_IN_FLIGHT_TEXTS // MIB} MiB" in prose
    assert f"one piece of {textqueue.PIECE // 1024} KiB" in prose
    assert f"it waits {textqueue.ROOM_PATIENCE:g} s, then" in prose
    assert f"keeps for another one | {textqueue.MAX_STORED_QUESTIONS // MIB} MiB" in prose
    assert f"not been asked | {tokens.PATIENCE:g} s" in prose
    assert f"for one client | {session.MAX_STATE // MIB} MiB" in prose
    assert f"`timeout` seconds, {TIMEOUT:g} by default" in prose
    assert f"`connect` has {CONNECT_TIMEOUT:g} seconds" in prose
    assert f"503 after {CONNECT_TIMEOUT:g} seconds" in prose
    assert f"than was handled in {session.PATIENCE:g} seconds" in prose


def test_budget_of_a_turn_is_as_said() -> None:
    prose = " ".join(PAGE.split())
    assert f"{BUDGET // WORK} small pieces of work, {BUDGET // 1024} KiB of frames" in prose
    assert f"or {1000 * BUDGET // _SECOND} milliseconds of handlers" in prose
