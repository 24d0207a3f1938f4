"""What a client says when it connects: token, origin, parameters, version."""

import base64
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adsum.channels.wire.connect import MAX_HEADERS, MAX_QUERY, read_client
from adsum.channels.wire.frames import V1, V2
from adsum.channels.wire.origins import Origins, RejectedError
from tests.support.effort import examples

ANY = Origins(["*"])
PREFIX = "base64url.bearer.phx."


def scope(query: str = "vsn=2.0.0", *protocols: str, **headers: str) -> dict[str, Any]:
    return {
        "query_string": query.encode(),
        "headers": [(name.replace("_", "-").encode(), value.encode("latin-1"))
                    for name, value in headers.items()],
        "subprotocols": list(protocols),
        "client": ("192.0.2.1", 4711),
    }  # fmt: skip


@examples(200)
@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("~~??>>ÿÿ")
def test_auth_token_is_decoded_in_both_alphabets_with_and_without_padding(token: str) -> None:
    for encode in base64.urlsafe_b64encode, base64.b64encode:
        encoded = encode(token.encode()).decode()
        for offered in encoded, encoded.rstrip("="):
            client, _ = read_client(scope("", "phoenix", PREFIX + offered), ANY, "websocket")
            assert client.token == token


@examples(100)
@given(st.text(st.characters(codec="latin-1")))
@example("a")
@example("_w")
@example("a b")
def test_malformed_auth_token_is_rejected_and_not_logged(text: str) -> None:
    try:
        client, _ = read_client(scope("", PREFIX + text), ANY, "websocket")
    except RejectedError as error:
        assert str(error) == "its token is not base64url"  # noqa: PT017  # some texts are tokens
    else:
        assert client.token is not None


def test_auth_token_is_read_from_header_or_absent() -> None:
    client, _ = read_client(scope(x_phoenix_authtoken="secret"), ANY, "longpoll")
    assert (client.token, client.transport) == ("secret", "longpoll")
    client, _ = read_client(scope("vsn=2.0.0", "phoenix"), ANY, "websocket")
    assert client.token is None


def test_handshake_fills_params_headers_and_address_of_the_client() -> None:
    client, serializer = read_client(
        scope("vsn=2.0.0&a=1&a=2&b=&c=%C3%A9+%26", USER_AGENT="x"), ANY, "websocket"
    )
    assert client.params == {"a": "2", "b": "", "c": "é &"}
    assert client.headers == {"user-agent": "x"}
    assert (client.address, client.id, client.assigns) == ("192.0.2.1", None, {})
    assert serializer is V2
    assert read_client(scope("a=1"), ANY, "websocket")[1] is V1
    nowhere = {**scope(), "client": None}
    assert read_client(nowhere, ANY, "websocket")[0].address is None


def test_duplicate_headers_are_joined_and_cookies_by_semicolons() -> None:
    pairs = [("Cookie", "a=1"), ("accept", "x"), ("cookie", "b=2"), ("Accept", "y")]
    several = [(name.encode(), value.encode()) for name, value in pairs]
    client, _ = read_client({**scope(), "headers": several}, ANY, "websocket")
    assert client.headers == {"cookie": "a=1; b=2", "accept": "x, y"}


@pytest.mark.parametrize("query", ["vsn=3.0.0", "vsn=", "&".join(f"a{n}=1" for n in range(101))])
def test_handshake_of_unknown_version_or_too_many_parameters_is_rejected(query: str) -> None:
    with pytest.raises(RejectedError):
        read_client(scope(query), ANY, "websocket")


def test_handshake_with_large_headers_or_parameters_is_rejected() -> None:
    ends = [(b"a", b"")] * (MAX_HEADERS // 16)  # uvicorn passes on any number
    for headers in ends, [(b"a", b"b" * MAX_HEADERS)], [(b"a" * MAX_HEADERS, b"")]:
        with pytest.raises(RejectedError, match=r"^its headers are too large$"):
            read_client({**scope(), "headers": headers}, ANY, "longpoll")
    with pytest.raises(RejectedError, match=r"^its parameters are too large$"):
        read_client(scope("a=" + "b" * MAX_QUERY), ANY, "longpoll")
