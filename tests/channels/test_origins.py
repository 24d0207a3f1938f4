"""Origins: which web sites may connect, and which patterns can match any."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.channels.wire.origins import Origins, RejectedError
from adsum.errors import ConfigurationError
from tests.support.effort import examples


@pytest.mark.parametrize(
    ("origin", "host", "accepted"),
    [
        (None, "example.com", True),
        ("https://example.com", "example.com", True),
        ("http://example.com:4000", "example.com:5000", True),
        ("http://EXAMPLE.com", "example.com", True),
        ("http://[::1]:4000", "[::1]:5000", True),
        ("https://evil.com", "example.com", False),
        ("https://example.com.evil.com", "example.com", False),
        ("https://evil-example.com", "example.com", False),
        ("https://sub.example.com", "example.com", False),
        ("https://example.com@evil.com", "example.com", False),
        ("null", "example.com", False),
        ("", "example.com", False),
        ("file://", "example.com", False),
        ("file://", None, False),
        ("https://[", "example.com", False),
        ("https://example.com", None, False),
        ("https://example.com", "", False),
        ("http://[0:0::1]", "[::1]:5000", True),
        ("capacitor://localhost", "localhost", False),
        ("//example.com", "example.com", False),
        ("https://example.com", "user@example.com", False),
    ],
)
def test_default_origin_check_accepts_only_the_same_host(
    origin: str | None, host: str | None, accepted: bool
) -> None:
    assert Origins(None).accepts(origin, host) is accepted


@pytest.mark.parametrize(
    ("configured", "origin", "accepted"),
    [
        # Scheme, host and effective port.
        ("https://example.com", "https://example.com", True),
        ("https://example.com", "https://example.com:443", True),
        ("https://example.com:443", "https://example.com", True),
        ("http://example.com:80", "http://example.com", True),
        ("wss://example.com", "wss://example.com:443", True),
        ("ws://example.com:80", "ws://example.com", True),
        ("https://example.com", "http://example.com", False),
        ("https://example.com", "https://example.com:8443", False),
        ("https://example.com", "https://example.com:80", False),
        ("https://example.com:444", "https://example.com:444", True),
        ("https://example.com:444", "https://example.com:445", False),
        ("https://example.com:444", "https://example.com", False),
        ("https://example.com", "https://example.com:port", False),
        ("https://example.com", "https://example.com:", False),
        ("https://example.com", "https://example.com/", False),
        ("https://example.com", "https://example.com@evil.com", False),
        ("https://example.com", "https://evil.com\\example.com", False),
        ("https://example.com", "https://example.com, https://example.com", False),
        ("https://example.com", "//example.com", False),
        ("https://example.com", "null", False),
        ("https://example.com", "", False),
        ("HTTPS://Example.COM", "https://example.com", True),
        ("https://example.com", "HTTPS://EXAMPLE.com", True),
        # Without a scheme: pages, on the default port or the one that is given.
        ("//example.com", "http://example.com", True),
        ("//example.com", "https://example.com", True),
        ("//Example.com", "http://example.com:80", True),
        ("//example.com", "http://example.com:443", False),
        ("//example.com", "http://example.com:8080", False),
        ("//example.com", "ws://example.com", False),
        ("//example.com", "app://example.com", False),
        ("//example.com:443", "https://example.com", True),
        ("//example.com:8080", "http://example.com:8080", True),
        ("//example.com:8080", "https://example.com:8080", True),
        ("//example.com:8080", "https://example.com", False),
        # Subdomains.
        ("//*.example.com", "https://a.b.example.com", True),
        ("//*.example.com", "https://example.com", False),
        ("//*.example.com", "https://.example.com", False),
        ("//*.example.com", "https://evilexample.com", False),
        ("//*.example.com", "https://a.example.com.evil.com", False),
        ("//*.example.com", "https://a.example.com:8443", False),
        ("//*.example.com:8443", "https://a.example.com:8443", True),
        ("https://*.example.com", "https://a.example.com", True),
        ("https://*.example.com", "http://a.example.com", False),
        # Addresses.
        ("http://127.0.0.1:4000", "http://127.0.0.1:4000", True),
        ("http://[0::1]:4000", "http://[::1]:4000", True),
        ("http://[::1]", "http://[::2]", False),
        # International names.
        ("https://bücher.example", "https://xn--bcher-kva.example", True),
        ("https://BÜCHER.example", "https://xn--bcher-kva.example", True),
        ("//*.bücher.example", "https://www.xn--bcher-kva.example", True),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example", True),
        # Pages of applications, and without an origin.
        ("null", "null", True),
        ("NULL", "null", True),
        ("null", "https://null", False),
        ("null", "file://", False),
        ("file://", "file://", True),
        ("file://", "file://host", False),
        ("file://", "null", False),
        ("app://local", "app://local", True),
        ("app://local", "app://LOCAL", True),
        ("app://local", "app://other", False),
        ("app://local", "apps://local", False),
        ("capacitor://localhost", "capacitor://localhost", True),
        ("capacitor://localhost", "http://localhost", False),
        ("capacitor://localhost", "capacitor://localhost:80", False),
        ("tauri://localhost", "tauri://localhost", True),
        ("chrome-extension://abcdef", "chrome-extension://abcdef", True),
        ("*", "https://anything", True),
        ("*", "null", True),
        ("*", "no origin", True),
    ],
)
def test_origin_list_determines_accepted_origins(
    configured: str, origin: str, accepted: bool
) -> None:
    # The host that is asked counts for nothing then.
    assert Origins([configured]).accepts(origin, "example.com") is accepted


def test_missing_origin_is_accepted_and_an_empty_list_refuses_every_origin() -> None:
    assert Origins([]).accepts(None, "example.com")
    assert not Origins([]).accepts("https://example.com", "example.com")


@examples(200)
@given(st.text(), st.none() | st.text())
def test_any_origin_and_host_can_be_compared(origin: str, host: str | None) -> None:
    for origins in Origins(None), Origins(["https://example.com", "//*.example.com"]):
        assert origins.accepts(origin, host) in (True, False)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "example.com",
        "example.com:443",
        "/path",
        "//",
        "https://",
        "https:///",
        "https:example.com",
        "https://[",
        "https://[::1",
        "https://[::g]",
        "https://[fe80::1%eth0]",
        "https://::1",
        "//x:port",
        "//x:",
        "//x:0",
        "//x:65536",
        "https://example.com/",
        "https://example.com/path",
        "https://example.com?query",
        "https://example.com#fragment",
        "https://user@example.com",
        "https://user:password@example.com",
        " https://example.com",
        "https://example.com\n",
        "https://exa mple.com",
        "https://example..com",
        "https://-example.com",
        "https://%65xample.com",
        "https://" + "x" * 64 + ".com",
        "https://" + "x." * 200 + "com",
        "https://1.2.3",
        "https://1.2.3.256",
        "https://*.1.2.3.4",
        "https://*.[::1]",
        "https://*",
        "//*",
        "//*:443",
        "//*.",
        "https://**.example.com",
        "https://a.*.example.com",
        "https://*a.example.com",
        "https://example.*",
        "*.example.com",
        "**",
        "app://*",
        "app://bücher",
        "https://straße.example",
        "https://a\u200db.example",
        "https://\ud800.example",
        "https://" + "ü" * 70 + ".example",
        None,
        5,
        b"https://example.com",
    ],
    ids=lambda pattern: repr(pattern)[:40],
)
def test_origin_pattern_that_can_never_match_is_refused(
    wrong: object,
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Origins([wrong])  # type: ignore[list-item]
    assert repr(wrong)[:80] in str(caught.value)
    assert "must be like 'https://example.com'" in str(caught.value)
    assert len(str(caught.value)) < 600


TEXTS = st.one_of(
    st.text(),
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["", "//", "https://", "HTTP://", "ws:", "app://", "file://"]),
        st.sampled_from(["", "*", "*.", "[::1]", "127.0.0.1", "user@"]),
        st.text("aB0.-_*:ü漢", max_size=12) | st.sampled_from(["example.com", "localhost"]),
        st.sampled_from(["", ":443", ":80", ":1", ":", "/"]),
    ),
)


@examples(1000)
@given(TEXTS)
def test_accepted_origin_pattern_matches_an_origin(pattern: str) -> None:
    try:
        origins = Origins([pattern])
    except ConfigurationError:
        return
    origin = pattern.lower()
    if origin.startswith("//"):
        origin = f"https:{origin}"
    origin = origin.replace("://*.", "://www.")
    if not origin.isascii():
        scheme, _, rest = origin.partition("://")
        host, colon, port = rest.partition(":")
        origin = f"{scheme}://{host.encode('idna').decode()}{colon}{port}"
    assert origins.accepts(origin, None)
    assert not origins.accepts("https://evil.invalid", None) or pattern == "*"


@pytest.mark.parametrize(
    ("origin", "can_be_listed"),
    [
        ("https://evil.example", True),
        ("http://localhost:4000", True),
        ("null", True),
        ("app://local", True),
        ("https://evil.example/path", False),
        ("nonsense", False),
        ("", False),
        ("https://" + "a." * 80 + "example", False),
    ],
)
def test_origin_refusal_names_the_setting_that_would_accept_it(
    origin: str, can_be_listed: bool
) -> None:
    with pytest.raises(RejectedError) as caught:
        Origins(None).check({"origin": origin, "host": "example.com"})
    suggested = f"origins=[{origin!r}]" in str(caught.value)
    assert suggested is can_be_listed
    assert len(str(caught.value)) < 400
    if suggested:
        Origins([origin]).check({"origin": origin, "host": "example.com"})


def test_string_instead_of_an_origin_list_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"origins='https://example\.com'"):
        Origins("https://example.com")
