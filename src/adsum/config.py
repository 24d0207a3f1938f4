"""Settings of a node: from keywords, then `ADSUM_*` environment variables, then defaults.

Every setting is read and checked when the node is constructed. `docs/configuration.md` explains
each with its formula, unit and trade-off.

The prefix `ADSUM_` is reserved for settings. An unknown variable, such as a misspelt `ADSUM_PEER`,
would have no effect, and the node would run apart from its cluster; so it is logged. Errors name
the source of the value, the keyword or the variable.
"""

import difflib
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from adsum.bus.carrierurl import check_carrier, mask
from adsum.errors import ConfigurationError
from adsum.quoting import quoted
from adsum.replication.timing import Timing, carrier_timing
from adsum.transport.address import parse, parse_one
from adsum.transport.discovery import longest_socket
from adsum.transport.tls import TLS, require_security, require_verification
from adsum.values.limits import MAX_ADDRESSES, MAX_LINGER, MAX_NODE_NAME
from adsum.values.names import is_name

logger = logging.getLogger("adsum.node")

_PREFIX = "ADSUM_"
_TLS_VARIABLES = ("ADSUM_TLS_CERTIFICATE", "ADSUM_TLS_KEY", "ADSUM_TLS_AUTHORITY")
#: Unknown variables named in one log line at most; the others are counted.
_MAX_UNKNOWN = 5
#: Similarity, from 0 to 1, at which a setting is suggested for an unknown variable; the common
#: prefix is not compared.
_SIMILAR = 0.6
#: Variables that Kubernetes and Docker set for a service named adsum, such as ADSUM_SERVICE_HOST.
_OF_SERVICES = re.compile(r"_SERVICE_(HOST|PORT)(_|$)|_PORT_[0-9]+_(TCP|UDP|SCTP)(_|$)")
#: Bytes of the shortest shared secret; a shorter one could be guessed from a recorded handshake.
MIN_SECRET = 16
#: Seconds of the longest `join_timeout`.
MAX_JOIN_TIMEOUT = 3600.0
#: Seconds of the usual `carrier_grace`, and of the longest.
CARRIER_GRACE, MAX_CARRIER_GRACE = 30.0, 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The checked settings of a node, complete and consistent."""

    name: str | None
    cluster: str | None
    listen: tuple[str, ...]
    advertise: tuple[str, ...]
    peers: tuple[str, ...]
    carrier: str | None = field(repr=False)
    carrier_grace: float
    siblings: bool
    runtime_dir: str | None
    secret: bytes | None = field(repr=False)
    tls: TLS | None
    linger: float
    join_timeout: float
    timing: Timing


def resolve_settings(
    given: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> Settings:
    """Read and check the settings from keywords, the environment and defaults.

    Args:
        given: Settings by name; None means not given.
        environment: The variables to look up `ADSUM_*` in; `os.environ` if None.

    Raises:
        ConfigurationError: A setting is wrong or contradicts another.
    """
    variables = os.environ if environment is None else environment
    read = _Reader(given, variables)
    carrier = read.carrier()
    defaults = Timing() if carrier is None else carrier_timing()
    timing = replace(
        defaults,
        heartbeat_interval=read.seconds("heartbeat_interval", defaults.heartbeat_interval, 0.02),
        down_after=read.seconds("down_after", defaults.down_after, 0.1),
        link_grace=read.seconds("link_grace", defaults.link_grace, 0.01),
        forget_after=read.seconds("forget_after", defaults.forget_after, 1.0),
        coalesce_interval=read.seconds("coalesce_interval", defaults.coalesce_interval, 0.0),
    )
    _check_timing(timing, read.label)
    settings = Settings(
        name=read.text("name", MAX_NODE_NAME),
        cluster=read.text("cluster", MAX_NODE_NAME),
        listen=read.addresses("listen", parse),
        advertise=read.addresses("advertise", parse_one),
        peers=read.addresses("peers", parse_one),
        carrier=carrier,
        carrier_grace=read.seconds("carrier_grace", CARRIER_GRACE, 0.0, MAX_CARRIER_GRACE),
        siblings=read.flag("siblings", True),
        runtime_dir=read.directory("runtime_dir"),
        secret=read.secret(),
        tls=read.tls(),
        linger=read.seconds("linger", 0.0, 0.0, MAX_LINGER),
        join_timeout=read.seconds("join_timeout", 2.0, 0.0, MAX_JOIN_TIMEOUT),
        timing=timing,
    )
    if carrier is not None:
        _check_carrier(settings, carrier, read.label)
    if settings.advertise and not settings.listen:
        label = read.label("advertise")
        _refuse(
            label, settings.advertise, "must be set with `listen`: nothing answers there otherwise"
        )
    require_verification(settings.tls, settings.secret)
    for name in ("listen", "advertise", "peers"):
        addresses = getattr(settings, name)
        require_security(addresses, settings.secret, settings.tls, read.label(name))
    known = {read.variable(name) for name in given if name != "tls"}
    _warn_of_unknown(variables, known | {*_TLS_VARIABLES})
    return settings


def _warn_of_unknown(environment: Mapping[str, str], known: set[str]) -> None:
    """Log unknown variables with the prefix of settings, in one line; never their values."""
    unknown = [
        name
        for name, value in environment.items()
        if name.upper().startswith(_PREFIX) and name not in known
        if value and not _OF_SERVICES.search(name) and not re.match("(tcp|udp|sctp)://", value)
    ]
    if not unknown:
        return
    hints = list[str]()
    for name in sorted(unknown)[:_MAX_UNKNOWN]:
        hints.append(f"{quoted(name)} ({_suggestion(name, known)})")
    more = f" and {len(unknown) - _MAX_UNKNOWN} more" if len(unknown) > _MAX_UNKNOWN else ""
    text = "the environment has unknown variables, which have no effect: %s%s"
    logger.warning(text, ", ".join(hints), more)


def _suggestion(name: str, known: set[str]) -> str:
    """A question with the setting most similar to an unknown variable, or a note without one."""
    if name.upper() == f"{_PREFIX}TLS":
        return f"did you mean {', '.join(_TLS_VARIABLES)}?"
    rests = {each.removeprefix(_PREFIX) for each in known}
    rest = name.upper()[len(_PREFIX) : MAX_NODE_NAME]
    close = difflib.get_close_matches(rest, rests, 1, _SIMILAR)
    return f"did you mean {_PREFIX}{close[0]}?" if close else "no setting has a similar name"


def _check_timing(timing: Timing, label: Callable[[str], str]) -> None:
    """Refuse durations that contradict each other."""
    heartbeat, down = timing.heartbeat_interval, timing.down_after
    if down < 3 * heartbeat:
        least = f"at least 3 x heartbeat_interval = {3 * heartbeat:g} s"
        why = f"must be {least}, or one late heartbeat looks like a death"
        _refuse(label("down_after"), down, why)
    if timing.link_grace > down:
        why = f"must be at most down_after = {down:g} s"
        _refuse(label("link_grace"), timing.link_grace, why)
    if timing.forget_after < down:
        why = f"must be at least down_after = {down:g} s"
        _refuse(label("forget_after"), timing.forget_after, why)
    if timing.coalesce_interval > heartbeat:
        why = f"must be at most heartbeat_interval = {heartbeat:g} s"
        _refuse(label("coalesce_interval"), timing.coalesce_interval, why)


def _check_carrier(settings: Settings, carrier: str, label: Callable[[str], str]) -> None:
    """Refuse a carrier without the settings that it needs, or with settings of other links."""
    shown = f"{label('carrier')}={quoted(mask(carrier))}"
    for name in ("cluster", "secret"):
        if getattr(settings, name) is None:
            raise ConfigurationError(
                f"{shown}: must be set with `{name}` ({_PREFIX}{name.upper()}), the same on all "
                f"nodes of the cluster"
            )
    for name in ("listen", "advertise", "peers", "tls"):
        value = getattr(settings, name)
        if value:
            given = f"{label(name)}={quoted(value)}" if name != "tls" else label(name)
            raise ConfigurationError(
                f"{given}: must not be set with {shown}, over which all links to other hosts run; "
                f"remove one of the two"
            )


class _Reader:
    """Looks up and converts settings; errors name the source of the value."""

    def __init__(self, given: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self._given = given
        self._environment = environment

    @staticmethod
    def variable(field: str) -> str:
        """The name of the variable for a setting."""
        return _PREFIX + field.upper()

    def label(self, field: str) -> str:
        """The name of a setting in errors: its variable if the value came from the environment."""
        variable = self.variable(field)
        is_from_there = self._given.get(field) is None and self._environment.get(variable)
        return variable if is_from_there else field

    def text(self, field: str, limit: int) -> str | None:
        value = self._find(field, str)
        if value is None:
            return None
        if not is_name(value, limit) or not value.isprintable():
            self._refuse(field, value, f"must be a str of 1 to {limit} printable characters")
        return str(value)

    def addresses(self, field: str, check: Callable[[str, str], object]) -> tuple[str, ...]:
        value = self._find(field, lambda text: [part.strip() for part in text.split(",")])
        listed = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(listed, Iterable) or isinstance(listed, bytes):
            self._refuse(field, value, "must be an address or a list of addresses")
        addresses = tuple(listed)
        if field != "peers" and len(addresses) >= MAX_ADDRESSES:
            self._refuse(field, value, f"must be fewer than {MAX_ADDRESSES} addresses")
        for address in addresses:
            check(address, self.label(field))
        return addresses

    def directory(self, field: str) -> str | None:
        value = self._find(field, str)
        if value is None:
            return None
        if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
            self._refuse(field, value, "must be a str, the absolute path of a directory")
        parse(longest_socket(value), self.label(field))
        return str(value)

    def flag(self, field: str, default: bool) -> bool:
        words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
        value = self._find(field, lambda text: words.get(text.lower(), text))
        if value is None:
            return default
        if not isinstance(value, bool):
            is_variable = self.label(field) != field
            accepted = "1, true, yes, 0, false or no" if is_variable else "True or False"
            self._refuse(field, value, f"must be {accepted}")
        return bool(value)

    def seconds(
        self, field: str, default: float, least: float, most: float = 10 * 365 * 86400.0
    ) -> float:
        value = self._find(field, _to_number)
        if value is None:
            return default
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            self._refuse(field, value, f"must be a number of seconds, {_span(least, most)}")
        if not least <= value <= most:
            self._refuse(field, value, f"must be {_span(least, most)}")
        return float(value)

    def secret(self) -> bytes | None:
        value = self._find("secret", str)
        if value is None:
            return None
        if not isinstance(value, str | bytes):
            self._refuse("secret", type(value), "must be a str or bytes")
        secret = value.encode() if isinstance(value, str) else value
        if len(secret) < MIN_SECRET:
            label, size = self.label("secret"), len(secret)
            raise ConfigurationError(
                f"{label} of {size} bytes: must have at least {MIN_SECRET} bytes, as from "
                f"secrets.token_urlsafe()"
            )
        return bytes(secret)

    def carrier(self) -> str | None:
        value = self._find("carrier", str)
        return None if value is None else check_carrier(value, self.label("carrier"))

    def tls(self) -> TLS | None:
        value = self._given.get("tls")
        if value is None:
            files = [self._environment.get(name) for name in _TLS_VARIABLES]
            if not any(files):
                return None
            if not all(files):
                self._refuse("tls", files, f"must be all of {', '.join(_TLS_VARIABLES)}, or none")
            return TLS.from_files(*[file for file in files if file])
        if not isinstance(value, TLS):
            self._refuse("tls", value, "must be an adsum.TLS, as from adsum.TLS.from_files()")
        return value  # type: ignore[no-any-return]  # a TLS by the check before it

    def _find(self, field: str, convert: Callable[[str], object]) -> Any:
        value = self._given.get(field)
        if value is None:
            text = self._environment.get(self.variable(field))
            value = convert(text) if text else None
        return value

    def _refuse(self, field: str, value: object, why: str) -> None:
        _refuse(self.label(field), value, why)


def _span(least: float, most: float) -> str:
    """A range of durations in an error."""
    year = 365 * 86400.0
    return f"between {least:g} s and " + (
        f"{most:g} s" if most < year else f"{most / year:g} years"
    )


def _to_number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _refuse(label: str, value: object, why: str) -> None:
    raise ConfigurationError(f"{label}={quoted(value)}: {why}")
