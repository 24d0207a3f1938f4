"""The setting `carrier`: its check, its masked form, and the client that it describes.

The accepted forms are ``nats://host:4222``, ``tls://host:4222``, ``redis://host:6379``,
``rediss://host:6379`` and ``unix:///path/of/the/socket``. Several servers of one kind are separated
by commas. User and password, or a token, are the user info of each URL, percent-encoded. Query
options of NATS are paths of files: ``creds``, ``nkey``, ``ca``, ``cert`` and ``key``. Those of
Redis are the ones of redis-py's ``from_url``.
"""

from typing import NoReturn
from urllib.parse import SplitResult, parse_qsl, urlsplit

from adsum.bus.busclient import BusClient, BusHandler
from adsum.bus.maskedurl import mask, split_urls
from adsum.errors import ConfigurationError
from adsum.quoting import described

__all__ = ["check_carrier", "make_client", "mask"]

#: Characters of the longest setting.
MAX_LENGTH = 4096
#: Servers of one setting at most.
MAX_SERVERS = 16
NATS_SCHEMES = frozenset({"nats", "tls"})
REDIS_SCHEMES = frozenset({"redis", "rediss", "unix"})
#: Query options of NATS; all are paths of files.
NATS_OPTIONS = frozenset({"creds", "nkey", "ca", "cert", "key"})
ACCEPTED = (
    "nats://host:4222, tls://host:4222, redis://host:6379, rediss://host:6379 or unix:///path, "
    "with user:password@ before the host if needed, and commas between several servers of one kind"
)


def check_carrier(text: object, field: str = "carrier") -> str:
    """Check the setting.

    Args:
        text: The setting.
        field: Its name in errors.

    Returns:
        The setting, unchanged.

    Raises:
        ConfigurationError: It is wrong; the text has the field, the masked value and the accepted
            forms, and no credentials.
    """
    if not isinstance(text, str):
        raise ConfigurationError(f"{field}={described(text)}: must be {ACCEPTED}")
    if not text.isprintable() or " " in text or not 0 < len(text) <= MAX_LENGTH:
        _refuse(field, text, f"{ACCEPTED}; at most {MAX_LENGTH} characters, no blanks")
    urls = split_urls(text)
    if len(urls) > MAX_SERVERS:
        _refuse(field, text, f"at most {MAX_SERVERS} servers")
    families = {_check_url(field, text, url) for url in urls}
    if len(families) > 1:
        _refuse(field, text, "servers of one kind: all of NATS, or all of Redis")
    return text


def make_client(url: str, handler: BusHandler, name: str) -> BusClient:
    """Make the client of a carrier; it does not connect yet.

    Args:
        url: The setting.
        handler: Receives the events of the client.
        name: The name of this node, shown by the engine's monitoring.

    Raises:
        ConfigurationError: The setting is wrong, or the library of the engine is not installed.
    """
    check_carrier(url)
    try:
        if urlsplit(url).scheme in NATS_SCHEMES:
            from adsum.bus.natsclient import NatsClient

            return NatsClient(url, handler, name)
        from adsum.bus.redisclient import RedisClient
    except ModuleNotFoundError as error:
        if error.name not in ("nats", "redis"):
            raise
        package, extra = ("nats-py", "nats") if error.name == "nats" else ("redis", "redis")
        text = f"carrier='{mask(url)}': needs {package}; run: pip install 'adsum[{extra}]'"
        raise ConfigurationError(text) from None
    return RedisClient(url, handler, name)


def _check_url(field: str, text: str, url: str) -> str:
    """Check one URL, and return the engine that it names."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        _refuse(field, text, f"{ACCEPTED}; ports are from 1 to 65535")
    if parts.fragment or "#" in url:
        _refuse(field, text, f"{ACCEPTED}; write # as %23, / as %2F and @ as %40 in passwords")
    if parts.scheme == "unix":
        if not parts.path.strip("/"):
            _refuse(field, text, ACCEPTED)
    elif not parts.hostname or port == 0 or "," in parts.netloc.rpartition("@")[2]:
        _refuse(field, text, ACCEPTED)
    if parts.scheme in NATS_SCHEMES:
        _check_nats(field, text, parts)
        return "nats"
    if parts.scheme not in REDIS_SCHEMES:
        _refuse(field, text, ACCEPTED)
    return "redis"


def _check_nats(field: str, text: str, parts: SplitResult) -> None:
    if parts.path not in ("", "/"):
        _refuse(field, text, "a URL without a path for NATS, as nats://host:4222")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if not options.keys() <= NATS_OPTIONS or not all(options.values()):
        names = ", ".join(sorted(NATS_OPTIONS))
        _refuse(field, text, f"a URL whose query options are paths of files: {names}")
    if ("key" in options) != ("cert" in options):
        _refuse(field, text, "a URL with both of the query options cert and key, or neither")


def _refuse(field: str, text: str, accepted: str) -> NoReturn:
    raise ConfigurationError(f"{field}='{mask(text)}': must be {accepted}")
