"""The settings of a node: by keyword, then `ADSUM_*` in the environment, then defaults.

Every setting is read and checked when the node is constructed. `docs/configuration.md` explains
each with its formula, unit and trade-off.
"""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from adsum.errors import ConfigurationError
from adsum.replication.limits import MAX_ADDRESSES, MAX_LINGER, MAX_NODE_NAME
from adsum.replication.timing import Timing
from adsum.transport.address import parse, parse_one
from adsum.transport.discovery import longest_socket
from adsum.transport.tls import TLS, require_security, require_verification

#: A shared secret shorter than this could be guessed from an overheard handshake.
MIN_SECRET = 16
#: Seconds of the longest `join_timeout`.
MAX_JOIN_TIMEOUT = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a node, complete and consistent."""

    name: str | None
    cluster: str | None
    listen: tuple[str, ...]
    advertise: tuple[str, ...]
    peers: tuple[str, ...]
    siblings: bool
    runtime_dir: str | None
    secret: bytes | None
    tls: TLS | None
    linger: float
    join_timeout: float
    timing: Timing


def settle(given: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
    """The settings that follow from keywords and the environment.

    Args:
        given: Settings by name; None means not given.
        environment: Where `ADSUM_*` are looked up; `os.environ` if None.

    Raises:
        ConfigurationError: A setting is wrong or contradicts another.
    """
    read = _Reader(given, os.environ if environment is None else environment)
    defaults = Timing()
    timing = Timing(
        heartbeat_interval=read.seconds("heartbeat_interval", defaults.heartbeat_interval, 0.02),
        down_after=read.seconds("down_after", defaults.down_after, 0.1),
        link_grace=read.seconds("link_grace", defaults.link_grace, 0.01),
        forget_after=read.seconds("forget_after", defaults.forget_after, 1.0),
        coalesce_interval=read.seconds("coalesce_interval", defaults.coalesce_interval, 0.0),
    )
    _check_timing(timing)
    settings = Settings(
        name=read.text("name", MAX_NODE_NAME),
        cluster=read.text("cluster", MAX_NODE_NAME),
        listen=read.addresses("listen", parse),
        advertise=read.addresses("advertise", parse_one),
        peers=read.addresses("peers", parse_one),
        siblings=read.flag("siblings", True),
        runtime_dir=read.directory("runtime_dir"),
        secret=read.secret(),
        tls=read.tls(),
        linger=read.seconds("linger", 0.0, 0.0, MAX_LINGER),
        join_timeout=read.seconds("join_timeout", 2.0, 0.0, MAX_JOIN_TIMEOUT),
        timing=timing,
    )
    if settings.advertise and not settings.listen:
        _refuse("advertise", settings.advertise, "it needs `listen`: nothing answers there")
    require_verification(settings.tls, settings.secret)
    for field in ("listen", "advertise", "peers"):
        require_security(getattr(settings, field), settings.secret, settings.tls, field)
    return settings


def _check_timing(timing: Timing) -> None:
    """Refuse durations that contradict each other."""
    heartbeat, down = timing.heartbeat_interval, timing.down_after
    if down < 3 * heartbeat:
        least = f"at least 3 x heartbeat_interval = {3 * heartbeat:g} s"
        _refuse(
            "down_after", down, f"accepted is {least}, or one late heartbeat looks like a death"
        )
    if timing.link_grace > down:
        _refuse("link_grace", timing.link_grace, f"accepted is at most down_after = {down:g} s")
    if timing.forget_after < down:
        _refuse(
            "forget_after", timing.forget_after, f"accepted is at least down_after = {down:g} s"
        )
    if timing.coalesce_interval > heartbeat:
        most = f"at most heartbeat_interval = {heartbeat:g} s"
        _refuse("coalesce_interval", timing.coalesce_interval, f"accepted is {most}")


class _Reader:
    """Looks settings up and converts them; errors say where a value came from."""

    def __init__(self, given: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self._given = given
        self._environment = environment

    def text(self, field: str, limit: int) -> str | None:
        value = self._find(field, str)
        if value is None:
            return None
        if not isinstance(value, str) or not 0 < len(value) <= limit or not value.isprintable():
            _refuse(field, value, f"accepted is a str of 1 to {limit} printable characters")
        return str(value)

    def addresses(self, field: str, check: Callable[[str, str], object]) -> tuple[str, ...]:
        value = self._find(field, lambda text: [part.strip() for part in text.split(",")])
        listed = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(listed, Iterable):
            _refuse(field, value, "accepted is an address or a list of addresses")
        addresses = tuple(listed)
        if field != "peers" and len(addresses) >= MAX_ADDRESSES:
            _refuse(field, value, f"accepted are fewer than {MAX_ADDRESSES} addresses")
        for address in addresses:
            check(address, field)
        return addresses

    def directory(self, field: str) -> str | None:
        value = self._find(field, str)
        if value is None:
            return None
        if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
            _refuse(field, value, "must be the absolute path of a directory")
        parse(longest_socket(value), field)
        return str(value)

    def flag(self, field: str, default: bool) -> bool:
        words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
        value = self._find(field, lambda text: words.get(text.lower(), text))
        if value is None:
            return default
        if not isinstance(value, bool):
            _refuse(field, value, "accepted are True and False; 1, true, yes, 0, false, no")
        return bool(value)

    def seconds(
        self, field: str, default: float, least: float, most: float = 10 * 365 * 86400.0
    ) -> float:
        value = self._find(field, _to_number)
        if value is None:
            return default
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not least <= value <= most:
            _refuse(field, value, f"accepted are seconds from {least:g} to {most:g}")
        return float(value)

    def secret(self) -> bytes | None:
        value = self._find("secret", str)
        if value is None:
            return None
        if not isinstance(value, str | bytes):
            _refuse("secret", "...", "accepted is a str or bytes")
        secret = value.encode() if isinstance(value, str) else value
        if len(secret) < MIN_SECRET:
            text = f"accepted are at least {MIN_SECRET} bytes, as from secrets.token_urlsafe()"
            _refuse("secret", f"({len(secret)} bytes)", text)
        return bytes(secret)

    def tls(self) -> TLS | None:
        value = self._given.get("tls")
        if value is None:
            names = ("ADSUM_TLS_CERTIFICATE", "ADSUM_TLS_KEY", "ADSUM_TLS_AUTHORITY")
            files = [self._environment.get(name) for name in names]
            if not any(files):
                return None
            if not all(files):
                _refuse("tls", files, f"accepted are all of {', '.join(names)}, or none")
            return TLS.from_files(*[file for file in files if file])
        if not isinstance(value, TLS):
            _refuse("tls", value, "accepted is an adsum.TLS, as from adsum.TLS.from_files()")
        return value  # type: ignore[no-any-return]  # a TLS by the check before it

    def _find(self, field: str, convert: Callable[[str], object]) -> Any:
        value = self._given.get(field)
        if value is None:
            text = self._environment.get(f"ADSUM_{field.upper()}")
            value = convert(text) if text else None
        return value


def _to_number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _refuse(field: str, value: object, accepted: str) -> None:
    raise ConfigurationError(f"{field}={value!r}: {accepted}")
