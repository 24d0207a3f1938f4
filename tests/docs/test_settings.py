"""docs/configuration.md describes every setting as it is, and no other."""

import inspect
import re
from pathlib import Path

import pytest

import adsum
from adsum.bus.bussession import MAX_UNANSWERED, PING_INTERVAL
from adsum.config import Settings, resolve_settings
from adsum.replication.timing import carrier_timing
from tests.support.markdown_pages import PAGES, ROOT, relative

PAGE = (ROOT / "docs/configuration.md").read_text()
#: The rows of the table of settings: keyword, variable, default, what is accepted.
ROWS = {
    row[0]: row[1:]
    for row in re.findall(r"^\| \[`(\w+)`\]\([^)]+\) \| (.+?) \| (.+?) \| (.+?) \|$", PAGE, re.M)
}
KEYWORDS = [name for name in inspect.signature(adsum.Node).parameters if name != "self"]
TLS_VARIABLES = {"ADSUM_TLS_CERTIFICATE", "ADSUM_TLS_KEY", "ADSUM_TLS_AUTHORITY"}
VARIABLES = {f"ADSUM_{name.upper()}" for name in KEYWORDS if name != "tls"} | TLS_VARIABLES


def default_of(settings: Settings, name: str) -> str:
    value = getattr(settings.timing, name, None)
    value = getattr(settings, name) if value is None else value
    if value is None or value == ():
        return "none"
    return f"`{value}`" if isinstance(value, bool) else str(value)


def test_every_setting_is_documented_and_no_other() -> None:
    assert sorted(ROWS) == sorted(KEYWORDS)
    for name in KEYWORDS:
        assert f"### `{name}`\n" in PAGE


@pytest.mark.parametrize("name", KEYWORDS)
def test_setting_has_the_default_and_the_variable_that_the_page_says(name: str) -> None:
    variable, default, _ = ROWS[name]
    assert default == default_of(resolve_settings({}, {}), name)
    assert set(re.findall(r"ADSUM_\w+", variable)) <= VARIABLES
    assert name == "tls" or variable == f"`ADSUM_{name.upper()}`"


def test_page_states_the_bound_of_down_after_over_a_carrier_and_the_default_is_above_it() -> None:
    noticed = (MAX_UNANSWERED + 1) * PING_INTERVAL
    assert f"above `heartbeat_interval + {noticed:g} s`" in PAGE
    usual = carrier_timing()
    assert usual.down_after > usual.heartbeat_interval + noticed


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_variable_that_a_page_names_exists(page: Path) -> None:
    for variable in re.findall(r"\bADSUM_[A-Z][A-Z_]*\b", page.read_text()):
        assert variable in VARIABLES, variable


@pytest.mark.parametrize(
    ("name", "least"),
    [
        (name, float(match[1]))
        for name, (_, _, accepted) in ROWS.items()
        if (match := re.match(r"seconds, from ([\d.]+)", accepted))
    ],
)
def test_duration_has_the_least_value_that_the_page_says(name: str, least: float) -> None:
    rest = {"heartbeat_interval": 0.02, "coalesce_interval": 0.0, "link_grace": 0.01}
    rest |= {"down_after": 0.1, "forget_after": 1.0} if name != "linger" else {}
    resolve_settings({**rest, name: least}, {})
    with pytest.raises(adsum.ConfigurationError, match=name):
        resolve_settings({**rest, name: least - 0.001}, {})
