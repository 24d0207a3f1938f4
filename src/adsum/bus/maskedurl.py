"""URLs of carriers without their secrets, for errors and log lines.

A wrong URL is masked too, and a password may hold any unescaped character there. So a part that
does not have the exact form of a URL without credentials is hidden up to its last "@", or entirely.
"""

import re
from urllib.parse import unquote, urlsplit

from adsum.quoting import printable

#: Stands for the hidden part.
HIDDEN = "***"
#: Characters of a masked text or a reason at most.
MAX_SHOWN = 300
#: Characters of the shortest secret that is replaced in texts of a library; a shorter one would
#: replace parts of words.
_LEAST_SECRET = 3
#: Query options that are paths or switches, shown in errors. The values of all others are hidden.
_SHOWN_OPTIONS = frozenset(
    {"creds", "nkey", "ca", "cert", "key", "db", "protocol", "ssl_ca_certs", "ssl_certfile"}
    | {"ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname", "socket_connect_timeout"}
)
_NEXT_URL = re.compile(r",(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,20}://")
#: A host with a port, then a path without special characters: nothing in it can be a password.
_PLAIN = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]*)(:[0-9]{1,5})?(/[A-Za-z0-9._/-]*)?")


def split_urls(text: str) -> list[str]:
    """The URLs of a setting: a comma before a scheme separates two of them."""
    return _NEXT_URL.split(text)


def mask(text: str) -> str:
    """A setting of a carrier without user, password, token and secret query values.

    It accepts any text, also one that is no URL; at most `MAX_SHOWN` characters are returned.
    """
    return printable(",".join(map(_masked, split_urls(text))), MAX_SHOWN)


def scrubbed(reason: object, url: str) -> str:
    """The text of an error of a library, printable, without the secrets of a URL."""
    text = str(reason) or type(reason).__name__
    for secret in sorted(_secrets(url), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return printable(text, MAX_SHOWN)


def _masked(url: str) -> str:
    found = _SCHEME.match(url)
    scheme, rest = (found.group(), url[found.end() :]) if found else ("", url)
    _user, at, rest = rest.rpartition("@")
    place, mark, query = rest.partition("?")
    if not _PLAIN.fullmatch(place) or (not scheme and (at or mark or ":" in rest)):
        return scheme + HIDDEN
    options = mark + "&".join(map(_masked_option, query.split("&"))) if mark else ""
    return scheme + (HIDDEN + at if at else "") + place + options


def _masked_option(option: str) -> str:
    name, _, value = option.partition("=")
    if not re.fullmatch("[a-z_]{1,30}", name):
        return HIDDEN
    shown = name in _SHOWN_OPTIONS and re.fullmatch("[A-Za-z0-9._/-]*", value)
    return f"{name}={value if shown else HIDDEN}"


def _secrets(url: str) -> set[str]:
    """The user, the password and the hidden query values of a URL, as written and decoded."""
    try:
        parts = urlsplit(url)
        options = [option.partition("=") for option in parts.query.split("&")]
        written = {parts.username or "", parts.password or ""}
    except ValueError:
        return set()
    written |= {value for name, _, value in options if name not in _SHOWN_OPTIONS}
    both = written | {unquote(value) for value in written}
    return {value for value in both if len(value) >= _LEAST_SECRET}
