"""Addresses: what is accepted, what is refused and how clearly, and what an address tells."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.errors import ConfigurationError
from adsum.quoting import quoted
from adsum.transport.address import (
    SUN_PATH_LIMIT,
    TcpAddress,
    UnixAddress,
    parse,
    parse_one,
)


@pytest.mark.parametrize(
    "text",
    [
        "localhost:7400",
        "10.0.0.1:1",
        "node-1.example.org:65535",
        "[::1]:7400",
        "[fe80::1]:7400-7407",
        "0.0.0.0:0",
        ":7400",
        "with_underscore:80",
        "unix:/run/adsum/a.sock",
        "unix:/with space and: colon",
    ],
)
def test_canonical_address_is_formatted_as_it_was_written(text: str) -> None:
    assert str(parse(text)) == text


def test_ipv6_address_is_made_canonical() -> None:
    assert str(parse("[0:0::0001]:80")) == "[::1]:80"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "port is missing"),
        ("localhost", "port is missing"),
        ("localhost:", "not a port"),
        ("localhost:http", "not a port"),
        ("localhost:-1", "not a port"),
        ("localhost:65536", "65535"),
        ("localhost:7407-7400", "ascending"),
        ("localhost:0-10", "ports must be"),
        ("localhost:\u0667", "not a port"),
        ("::1:7400", "brackets"),
        ("[::1:7400", "brackets"),
        ("[localhost]:7400", "not an IPv6 address"),
        ("tcp://host:7400", "no scheme"),
        ("host/path:7400", "not a host"),
        ("ho st:7400", "not a host"),
        ("host\n:7400", "not a host"),
        ("a" * 300 + ":1", "not a host"),
        ("unix:", "absolute"),
        ("unix:relative.sock", "absolute"),
        ("unix:/nul\0", "absolute"),
        ("unix:/" + "x" * SUN_PATH_LIMIT, "shorten"),
        (7400, "not a string"),
    ],
)
def test_wrong_address_error_names_field_value_and_format(text: str, hint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, "peers")

    message = str(caught.value)
    assert message.startswith(f"peers={quoted(text)}: ")
    assert hint in message
    assert "must be host:port" in message
    assert isinstance(caught.value, ValueError)


def test_path_of_a_unix_socket_is_measured_in_bytes() -> None:
    parse("unix:/" + "x" * (SUN_PATH_LIMIT - 1))
    with pytest.raises(ConfigurationError):
        parse("unix:/" + "é" * (SUN_PATH_LIMIT - 1))


@given(st.text())
def test_any_text_is_refused_or_round_trips_through_format(text: str) -> None:
    try:
        address = parse(text)
    except ConfigurationError:
        return
    assert parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "LOCALHOST:1", "unix:/a"],
)
def test_loopback_is_recognised(text: str) -> None:
    assert parse(text).is_loopback
    assert not parse(text).is_wildcard


@pytest.mark.parametrize("text", ["0.0.0.0:1", "[::]:1", ":1"])
def test_wildcards_are_recognised_and_are_not_loopback(text: str) -> None:
    assert parse(text).is_wildcard
    assert not parse(text).is_loopback


@pytest.mark.parametrize("text", ["10.0.0.1:1", "localhost.example.org:1", "[2001:db8::1]:1"])
def test_other_hosts_are_neither(text: str) -> None:
    assert not parse(text).is_loopback
    assert not parse(text).is_wildcard


def test_wildcard_takes_the_host_that_the_peer_is_seen_at() -> None:
    assert str(parse("0.0.0.0:7400").with_host("2001:db8::1")) == "[2001:db8::1]:7400"
    assert parse("unix:/a").with_host("10.0.0.1") == UnixAddress("/a")


def test_range_stands_for_each_of_its_ports() -> None:
    assert [str(address) for address in parse("a:1-3").each_port()] == ["a:1", "a:2", "a:3"]
    assert list(parse("unix:/a").each_port()) == [UnixAddress("/a")]


def test_only_one_port_can_be_dialled() -> None:
    assert parse_one("a:1", "peers") == TcpAddress("a", 1, 1)
    for text in ("a:0", "a:1-2"):
        with pytest.raises(ConfigurationError, match="only one port"):
            parse_one(text, "peers")
