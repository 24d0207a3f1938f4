"""A wrong argument is refused at the call, with its name, its value and what is accepted."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import asynccontextmanager
from functools import partial, wraps
from typing import Any
from unittest.mock import AsyncMock

import pytest

import adsum
from adsum.config import resolve_settings
from adsum.testing import Browser, Cluster

NAN = float("nan")
Call = Callable[[], Any]


class Unshowable:
    """Its repr raises."""

    __hash__ = None  # type: ignore[assignment]  # it cannot be an owner, either

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


async def fetch(topic: str, entries: dict[str, Any]) -> dict[str, Any]:
    return {}


def plain_fetch(topic: str, entries: dict[str, Any]) -> dict[str, Any]:
    return {}


async def short_fetch(topic: str) -> dict[str, Any]:
    return {}


async def generator(app: Any) -> Any:
    yield


def presence(**settings: Any) -> adsum.Presence:
    return adsum.Presence(adsum.Node(siblings=False), **settings)


#: What is refused at construction: a call, how its error begins, and what it says besides.
WRONG: list[tuple[Call, str, str]] = [
    (lambda: adsum.Presence("x"), "node='x'", "an adsum.Node"),  # type: ignore[arg-type]
    (lambda: adsum.Presence(None), "node=None", "an adsum.Node"),  # type: ignore[arg-type]
    (lambda: adsum.Presence(presence()), "node=", "an adsum.Node"),  # type: ignore[arg-type]
    (lambda: adsum.Presence(adsum.Node), "node=Node", "an adsum.Node"),  # type: ignore[arg-type]
    (lambda: adsum.PubSub("x"), "node='x'", "an adsum.Node"),  # type: ignore[arg-type]
    (lambda: adsum.PubSub(presence()), "node=", "an adsum.Node"),  # type: ignore[arg-type]
    (lambda: presence(fetch="x"), "fetch='x'", "`async def`"),
    (lambda: presence(fetch=plain_fetch), "fetch=plain_fetch", "`async def`"),
    (lambda: presence(fetch=print), "fetch=print", "`async def`"),
    (lambda: presence(fetch=short_fetch), "fetch=short_fetch", "of (topic, entries)"),
    (lambda: presence(fetch=partial(short_fetch, "t")), "fetch=", "of (topic, entries)"),
    *[
        (partial(presence, fetch_timeout=value), f"fetch_timeout={value!r}", "seconds above 0")
        for value in (0, -1, NAN, "5", True, None)
    ],
    (lambda: presence().node.wrap_app(None), "app=None", "an ASGI application"),  # type: ignore[arg-type]
    (lambda: presence().node.wrap_lifespan(None), "lifespan=None", "@asynccontextmanager"),  # type: ignore[arg-type]
    (
        lambda: presence().node.wrap_lifespan(generator),
        "lifespan=generator",
        "@asynccontextmanager",
    ),
    (lambda: presence().node.wrap_lifespan(short_fetch), "lifespan=short_fetch", "@async"),  # type: ignore[arg-type]
    (lambda: adsum.Node(listen=b"127.0.0.1:0"), "listen=b'127.0.0.1:0'", "address"),  # type: ignore[arg-type]
    (lambda: adsum.Node(name="x" * 10_000), "name='xxx", "1 to 255 printable"),
    (lambda: adsum.Node(name=Unshowable()), "name=<Unshowable object>", "must be a str"),  # type: ignore[arg-type]
    (lambda: adsum.Node(siblings="no"), "siblings='no'", "True or False"),  # type: ignore[arg-type]
    (lambda: adsum.Node(secret=5), "secret=<class 'int'>", "str or bytes"),  # type: ignore[arg-type]
    (lambda: Cluster("3"), "nodes='3'", "whole number from 0"),  # type: ignore[arg-type]
    (lambda: Cluster(-1), "nodes=-1", "whole number from 0"),
    (lambda: Browser(presence()), "socket=", "adsum.channels.Socket"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "beginning", "accepted"), WRONG)
def test_wrong_argument_of_a_constructor_is_refused(
    call: Call, beginning: str, accepted: str
) -> None:
    with pytest.raises(adsum.ConfigurationError) as caught:
        call()
    text = str(caught.value)
    assert text.startswith(beginning), text
    assert accepted in text
    assert len(text) < 500


#: What is refused while the node runs: a call, the kind of error, and what it says.
CALLS: list[tuple[Callable[[Any, Any], Any], type[Exception], str]] = [
    (lambda p, _: p.track(5, "ann"), TypeError, "topic must be a str, not int 5"),
    (lambda p, _: p.track("", "ann"), ValueError, "topic must have 1 to 1024 characters"),
    (lambda p, _: p.track("room", None), TypeError, "key must be a str"),
    (lambda p, _: p.track("room", "ann", "x"), TypeError, "meta must be a dict"),
    (lambda p, _: p.track("room", "ann", {"at": NAN}), ValueError, "meta.at is nan"),
    (lambda p, _: p.track("room", "ann", owner=[]), TypeError, "owner=[]: must be hashable"),
    (lambda p, _: p.track("room", "ann", owner=Unshowable()), TypeError, "owner=<Unshowable"),
    (lambda p, _: p.untrack_all({}), TypeError, "owner={}: must be hashable"),
    (lambda p, _: p.untrack([], "ann"), TypeError, "topic must be a str"),
    (lambda p, _: p.untrack("room", 5), TypeError, "key must be a str"),
    (lambda p, _: p.update(5, "ann", {}), TypeError, "topic must be a str"),
    (lambda p, _: p.track("r", "a").update(None), TypeError, "meta must be a dict"),
    (
        lambda p, _: p.track("r", "a").update(lambda meta: meta.update(away=True)),
        TypeError,
        "meta: the function must return the new meta, not None",
    ),
    (lambda p, _: p.list(None), TypeError, "topic must be a str"),
    (lambda p, _: p.list("room", after=5), TypeError, "after must be a str"),
    (lambda p, _: p.list("room", after="x" * 1025), ValueError, "after must have 1 to 1024"),
    *[
        (
            lambda p, _, limit=limit: p.list("room", limit=limit),
            adsum.ConfigurationError,
            f"limit={limit!r}: must be a whole number from 1 to 5,000",
        )
        for limit in (0, -1, 5_001, True, 1.5, "5")
    ],
    (lambda p, _: p.get("room", 5), TypeError, "key must be a str"),
    (lambda p, _: p.count([]), TypeError, "topic must be a str"),
    (lambda p, _: p.watch(b"room"), TypeError, "topic must be a str"),
    (lambda p, _: p.watch_topics(b"room"), TypeError, "prefix must be a str"),
    (lambda p, _: p.topics(5), TypeError, "prefix must be a str"),
    (lambda p, _: p.fetch(5), TypeError, "topic must be a str"),
    (lambda _, s: s.subscribe(5), TypeError, "topic must be a str"),
    *[
        (lambda _, s, limit=limit: s.subscribe("r", limit=limit), ValueError, "limit=")
        for limit in (0, -1, True, 1.5, "5", None)
    ],
    (lambda _, s: s.publish(5, {}), TypeError, "topic must be a str"),
    *[
        (
            lambda _, s, value=value: s.publish("r", value),
            TypeError,
            f"payload must be a dict (a JSON object) or bytes, not {shown}; publish it in a dict, "
            'such as {"value": payload}',
        )
        for value, shown in [("hi", "str 'hi'"), ([], "list []"), (5, "int 5")]
    ],
    (lambda _, s: s.publish("r", {}, event=5), TypeError, "event must be a str"),
    (lambda _, s: s.publish("r", {}, local="no"), ValueError, "local='no': must be True or False"),
    (lambda _, s: s.publish("r", {}, to=5), TypeError, "to must be a str"),
    (lambda _, s: s.publish("r", {}, to=""), ValueError, "to must have 1 to 255 characters"),
    (lambda _, s: s.publish("r", {}, exclude="x"), ValueError, "exclude='x': must be a subscr"),
    *[
        (lambda p, _, t=t: p.node.wait_joined(t), ValueError, "timeout=")
        for t in (-1, NAN, "5", True)
    ],
]


async def done(call: Callable[..., Any], *arguments: Any) -> None:
    result = call(*arguments)
    if asyncio.iscoroutine(result):
        await result


@pytest.mark.parametrize(("call", "error", "words"), CALLS)
def test_wrong_argument_of_a_call_is_refused(
    call: Callable[[Any, Any], Any], error: type[Exception], words: str
) -> None:
    async def main() -> None:
        node = adsum.Node(siblings=False)
        who, pubsub = adsum.Presence(node), adsum.PubSub(node)
        async with node:
            with pytest.raises(error) as caught:
                await done(call, who, pubsub)
            assert words in str(caught.value)
            assert len(str(caught.value)) < 500

    asyncio.run(main())


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


class Fetcher:
    async def __call__(self, topic: str, entries: dict[str, Any]) -> dict[str, Any]:
        return {}

    async def method(self, topic: str, entries: dict[str, Any]) -> dict[str, Any]:
        return {}

    @classmethod
    async def of_class(cls, topic: str, entries: dict[str, Any]) -> dict[str, Any]:
        return {}

    @staticmethod
    async def static(topic: str, entries: dict[str, Any], more: int = 1) -> dict[str, Any]:
        return {}


async def with_database(database: Any, topic: str, entries: dict[str, Any]) -> dict[str, Any]:
    return {}


@wraps(with_database)
async def given_a_database(topic: str, entries: dict[str, Any]) -> dict[str, Any]:
    return await with_database(None, topic, entries)


@pytest.mark.parametrize(
    "function",
    [
        fetch,
        Fetcher(),
        Fetcher().method,
        Fetcher.of_class,
        Fetcher.static,
        partial(with_database, None),
        partial(partial(with_database), None),
        partial(Fetcher()),
        given_a_database,
        decorated(fetch),
        decorated(decorated(fetch)),
        partial(decorated(with_database), None),
        AsyncMock(return_value={}),
    ],
)
def test_any_async_callable_is_accepted_as_fetch(function: Any) -> None:
    async def main() -> None:
        who = presence(fetch=function)
        async with who.node:
            who.track("room", "ann")
            assert list(await who.fetch("room")) == ["ann"]

    asyncio.run(main())


def test_lifespan_of_the_application_is_accepted() -> None:
    presence().node.wrap_lifespan(asynccontextmanager(generator))


# Variables.


def unknown(caplog: pytest.LogCaptureFixture, **environment: str) -> list[str]:
    with caplog.at_level(logging.WARNING, "adsum"):
        resolve_settings({"peers": None, "linger": None, "name": None}, environment)
    return [record.getMessage() for record in caplog.records]


def test_unknown_variable_is_logged_with_the_one_that_is_meant(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADSUM_PEER", "10.0.0.1:7400")
    monkeypatch.setenv("ADSUM_SECRETS", "hunter2")
    with caplog.at_level(logging.WARNING, "adsum"):
        adsum.Node(siblings=False)
    [record] = caplog.records
    assert "'ADSUM_PEER' (did you mean ADSUM_PEERS?)" in record.getMessage()
    assert "'ADSUM_SECRETS' (did you mean ADSUM_SECRET?)" in record.getMessage()
    assert "hunter2" not in record.getMessage()


def test_variable_in_lower_case_is_unknown(caplog: pytest.LogCaptureFixture) -> None:
    [line] = unknown(caplog, adsum_linger="5")
    assert "'adsum_linger' (did you mean ADSUM_LINGER?)" in line


def test_variable_without_a_similar_setting_gets_no_suggestion(
    caplog: pytest.LogCaptureFixture,
) -> None:
    [line] = unknown(caplog, ADSUM_FOO="1")
    assert "'ADSUM_FOO' (no setting has a similar name)" in line


def test_tls_variable_that_switches_nothing_on_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "adsum"):
        resolve_settings({"tls": None}, {"ADSUM_TLS": "yes"})
    assert "'ADSUM_TLS' (did you mean ADSUM_TLS_CERTIFICATE, ADSUM_TLS_KEY" in caplog.text


def test_many_and_long_variables_make_one_short_line(caplog: pytest.LogCaptureFixture) -> None:
    names = {f"ADSUM_{'X' * 10_000}\n{n}": "1" for n in range(100)}
    [line] = unknown(caplog, **names)
    assert len(line) < 1000
    assert "\n" not in line
    assert "and 95 more" in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ADSUM_PEERS", "127.0.0.1:1"),
        ("ADSUM_TLS_KEY", ""),
        ("ADSUM_PEER", ""),
        ("ADSUM_SERVICE_HOST", "10.0.0.1"),
        ("ADSUM_SERVICE_PORT_LINKS", "7400"),
        ("ADSUM_PORT", "tcp://10.0.0.1:7400"),
        ("ADSUM_PORT_7400_TCP_ADDR", "10.0.0.1"),
        ("PEERS", "x"),
        ("ADSUMMARY", "x"),
    ],
)
def test_settings_empty_ones_and_those_of_services_are_not_logged(
    name: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert unknown(caplog, **{name: value}) == []


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("ADSUM_LINGER", "5s", "a number of seconds, between 0 s and 3600 s"),
        ("ADSUM_SIBLINGS", "maybe", "1, true, yes, 0, false or no"),
        ("ADSUM_PEERS", "tcp://10.0.0.1:7400", "an address has no scheme"),
        ("ADSUM_NAME", "x" * 256, "1 to 255 printable characters"),
        ("ADSUM_LISTEN", "10.0.0.1:7400", "must be protected"),
        ("ADSUM_ADVERTISE", "127.0.0.1:1", "must be set with `listen`"),
        ("ADSUM_DOWN_AFTER", "2", "at least 3 x heartbeat_interval = 3 s"),
        ("ADSUM_FORGET_AFTER", "3", "at least down_after = 6 s"),
        ("ADSUM_RUNTIME_DIR", "relative", "absolute path"),
    ],
)
def test_error_names_the_variable_that_the_value_came_from(
    name: str, value: str, accepted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(adsum.ConfigurationError) as caught:
        adsum.Node()
    assert str(caught.value).startswith(f"{name}="), caught.value
    assert accepted in str(caught.value)


def test_short_secret_of_a_variable_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADSUM_SECRET", "hunter2")
    with pytest.raises(adsum.ConfigurationError, match=r"^ADSUM_SECRET of 7 bytes: ") as caught:
        adsum.Node()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("field", ["listen", "peers", "advertise"])
@pytest.mark.parametrize("scheme", ["tcp", "http", "tls", "unix", "redis", "wss"])
def test_address_has_no_scheme(field: str, scheme: str) -> None:
    given: dict[str, Any] = {"listen": "127.0.0.1:0", field: f"{scheme}://10.0.0.1:7400"}
    with pytest.raises(adsum.ConfigurationError) as caught:
        adsum.Node(**given)
    text = str(caught.value)
    assert text.startswith(f"{field}='{scheme}://10.0.0.1:7400': ")
    assert "scheme" in text
    assert "brackets" not in text
