"""Addresses of instances, as HTTP clients read them."""

import pytest

import adsum
from adsum.integrations.httpaddress import HttpAddress, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://10.0.0.5:8000", HttpAddress("http", "10.0.0.5", 8000)),
        ("https://Example.org/a/b/", HttpAddress("https", "example.org", None, "/a/b")),
        ("10.0.0.5:8000", HttpAddress("http", "10.0.0.5", 8000)),
        ("host/a", HttpAddress("http", "host", None, "/a")),
        ("http://[::1]:80", HttpAddress("http", "::1", 80)),
        (
            "http://my_app.xn--bcher-kva.example./%C3%BC",
            HttpAddress("http", "my_app.xn--bcher-kva.example.", None, "/%C3%BC"),
        ),
        ("unix:/run/a.sock", HttpAddress("http", "localhost", socket="/run/a.sock")),
    ],
)
def test_address_is_parsed(text: str, address: HttpAddress) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        *("unix:a.sock", "unix:", "amqp://10.0.0.5", "http://", "http://a:b", "http://a:99999"),
        *(
            "http://a b",
            "http://a\n:80",
            "http://a\0:80",
            "http://ä:80",
            "http://a..b",
            "http://a,b",
        ),
        *(
            "http://a\\b",
            "http://a/b c",
            "http://a/\r\nX: y",
            "http://a/ü",
            "http://a:0",
            "unix:/a\0",
        ),
        *("http://" + "a" * 64, "http://[fe80::1%25lo]:80"),
        *("http://a?x", "http://a/#x", "http://ann:secret@a", "http://[::1", ":80", "/path"),
    ],
)
def test_address_of_another_form_is_refused_by_name(text: str) -> None:
    with pytest.raises(adsum.ConfigurationError, match=r"^address=.*: must be http://host:port"):
        parse_address(text)
