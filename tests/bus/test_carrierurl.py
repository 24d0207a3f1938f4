"""The setting `carrier`: accepted and refused forms, and its masked form."""

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.bus.carrierurl import check_carrier, mask
from adsum.bus.maskedurl import MAX_SHOWN, scrubbed
from adsum.errors import ConfigurationError


@pytest.mark.parametrize(
    "text",
    [
        "nats://localhost",
        "nats://a:4222",
        "nats://a:4222,nats://b:4222",
        "nats://a:4222,tls://b:4222",
        "nats://user:secret@a:4222",
        "nats://token@a",
        "nats://us%40er:se,cret@a,nats://user:secret@b",
        "tls://a?ca=/etc/ca.pem&cert=/etc/a.pem&key=/etc/a.key",
        "nats://a?creds=/etc/user.creds",
        "redis://a",
        "redis://a:6379/0",
        "redis://:secret@a:6379,redis://:secret@b:6379",
        "rediss://a:6379?ssl_ca_certs=/etc/ca.pem",
        "redis://[::1]:6379",
        "unix:///run/redis.sock",
        "unix://user:secret@/run/redis.sock?db=1",
    ],
)
def test_accepted_setting_is_returned_unchanged(text: str) -> None:
    assert check_carrier(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a:4222",
        "nats:a",
        "http://a",
        "nats://",
        "nats://:4222",
        "nats://a:0",
        "nats://a:70000",
        "nats://a:x",
        "nats://a:4222,b:4222",
        "nats://a,",
        "nats://a, nats://b",
        "nats://a,redis://b",
        "redis://a,nats://b",
        "nats://a/path",
        "nats://a?unknown=1",
        "nats://a?creds=",
        "nats://a?cert=/etc/a.pem",
        "nats://user:se#cret@a",
        "redis://user:se/cret@a",
        "redis://user:se?cret@a",
        "unix://",
        "unix:///",
        "nats://a\n",
        "nats://[::1",
        ",".join(["nats://a"] * 17),
        "nats://" + "a" * 5000,
        None,
        b"nats://a",
        4222,
    ],
)
def test_wrong_setting_is_refused_by_an_error_that_names_the_field(text: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^carrier=") as caught:
        check_carrier(text)
    assert "must be" in str(caught.value)
    assert "cret" not in str(caught.value)


def test_error_names_another_source_of_the_value() -> None:
    with pytest.raises(ConfigurationError, match=r"^ADSUM_CARRIER='http://a'"):
        check_carrier("http://a", "ADSUM_CARRIER")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("nats://a:4222", "nats://a:4222"),
        ("nats://user:secret@a:4222", "nats://***@a:4222"),
        ("nats://secret@a,nats://user:secret@b", "nats://***@a,nats://***@b"),
        ("nats://user:se,cr@et@a:4222", "nats://***@a:4222"),
        ("redis://:se/cr?et#@a:6379/0", "redis://***@a:6379/0"),
        ("redis://a?password=secret&db=1&x=secret", "redis://a?password=***&db=1&x=***"),
        ("redis://a?db=se@cret", "redis://***@cret"),
        ("redis://a?se cret", "redis://a?***"),
        ("redis://:secret", "redis://***"),
        ("redis://user:secret:6379", "redis://***"),
        ("secret:4222", "***"),
        ("user:secret@a", "***"),
        ("unix://user:secret@/run/redis.sock", "unix://***@/run/redis.sock"),
        ("tls://a?ca=/etc/ca.pem&creds=/etc/a.creds", "tls://a?ca=/etc/ca.pem&creds=/etc/a.creds"),
        ("", ""),
    ],
)
def test_masked_setting_has_no_secrets(text: str, masked: str) -> None:
    assert mask(text) == masked


@given(
    secret=st.text(min_size=3).map(lambda text: f"<{text}>"),
    user=st.text(max_size=5),
    scheme=st.sampled_from(["nats", "redis", "unix", "http"]),
)
def test_no_password_with_any_characters_is_shown(secret: str, user: str, scheme: str) -> None:
    if re.search(r",[A-Za-z][A-Za-z0-9+.-]*://", secret):
        return  # reads as the next server
    shown = mask(f"{scheme}://{user}:{secret}@host:4222")
    assert secret not in shown
    assert shown == f"{scheme}://***@host:4222"


@given(st.text())
def test_mask_accepts_any_text_and_returns_a_short_printable_one(text: str) -> None:
    masked = mask(text)
    assert masked.isprintable()
    assert len(masked) <= MAX_SHOWN


@given(st.text(alphabet="nats:/@,?#%[]=.a1 \n", max_size=30))
def test_any_text_is_accepted_or_refused_by_the_error_of_settings(text: str) -> None:
    setting = f"nats://{text}"
    with contextlib.suppress(ConfigurationError):
        assert check_carrier(setting) == setting


def test_error_of_a_library_is_shown_without_secrets() -> None:
    url = "redis://some%40one:hun%2Fter2@host?token=s3cr3t&db=0"
    error = OSError("redis://some%40one:hun/ter2@host some@one hun%2Fter2 s3cr3t db=0\n")
    shown = scrubbed(error, url)
    for secret in ("hun/ter2", "hun%2Fter2", "some@one", "some%40one", "s3cr3t", "\n"):
        assert secret not in shown
    assert "host" in shown
    assert scrubbed(TimeoutError(), "nats://a") == "TimeoutError"
    assert scrubbed("no", "nats://[a") == "no"
