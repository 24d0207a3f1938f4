"""A wrong argument is refused at the call, with its name, its value and the accepted values."""

import asyncio
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

import adsum
from adsum.testing import MakeCluster
from tests.support.nodes import run

from .crew import NAME, Crew

#: A call of a `Services`; Any, because its arguments are wrong.
Call = Callable[[Any], Any]


async def check() -> bool:
    return True


def node() -> adsum.Node:
    return adsum.Node(siblings=False)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: adsum.Services("x"), "node='x': must be an adsum.Node"),  # type: ignore[arg-type]
        (lambda: adsum.Services(node(), pick="best"), "pick='best': must be one of 'least_used'"),
        (lambda: adsum.Services(node(), pick=None), "pick=None"),  # type: ignore[arg-type]
        (lambda: adsum.Services(node(), rest=-1), "rest=-1: must be a number of seconds"),
        (lambda: adsum.Services(node(), rest=3601), "rest=3601: must be from 0 to 3600"),
        (lambda: adsum.Services(node(), rest="5"), "rest='5'"),  # type: ignore[arg-type]
    ],
)
def test_wrong_setting_is_refused(call: Callable[[], Any], text: str) -> None:
    with pytest.raises(adsum.ConfigurationError, match=text):
        call()


WRONG: list[tuple[Call, type[Exception], str]] = [
    (lambda s: s.register("Users", "a"), ValueError, "name='Users': must be 1 to 100 lower-case"),
    (lambda s: s.register("", "a"), ValueError, "name=''"),
    (lambda s: s.register("a/b", "a"), ValueError, "name='a/b'"),
    (lambda s: s.register("users\n", "a"), ValueError, "name="),
    (lambda s: s.register("x" * 101, "a"), ValueError, "name='xxx"),
    (lambda s: s.register(b"users", "a"), TypeError, "name must be a str"),
    (lambda s: s.register(NAME, ""), ValueError, "address must have 1 to 300 characters"),
    (lambda s: s.register(NAME, "x" * 301), ValueError, "address must have 1 to 300"),
    (lambda s: s.register(NAME, 80), TypeError, "address must be a str"),
    (
        lambda s: s.register(NAME, "a", weight=10**400),
        ValueError,
        "weight=<int of .*: must be a number",
    ),
    (
        lambda s: s.register(NAME, "a", every=10**400),
        ValueError,
        "every=<int of .*: must be a number",
    ),
    (lambda s: s.register(NAME, "a", tags="eu"), ValueError, "tags='eu': must be a list"),
    (lambda s: s.register(NAME, "a", tags=5), ValueError, "tags=5"),
    (lambda s: s.register(NAME, "a", tags=[5]), TypeError, "tags: a tag must be a str"),
    (lambda s: s.register(NAME, "a", tags=["x" * 65]), ValueError, "tags: a tag must have 1 to 64"),
    (
        lambda s: s.register(NAME, "a", tags=[str(n) for n in range(17)]),
        ValueError,
        "16 tags at most, not 17",
    ),
    *[
        (
            lambda s, weight=weight: s.register(NAME, "a", weight=weight),
            ValueError,
            "weight=.*from 0.001 to 1000, or 0",
        )
        for weight in (-1, 1001, 0.0001, float("nan"), float("inf"), "1", True, None)
    ],
    (lambda s: s.register(NAME, "a", meta=[1]), TypeError, "meta"),
    (lambda s: s.register(NAME, "a", meta={"x": "x" * 40_000}), ValueError, "meta"),
    (lambda s: s.register(NAME, "a", check=print), ValueError, "check=print.*async def"),
    (lambda s: s.register(NAME, "a", check=check, every=0), ValueError, "every=0"),
    (lambda s: s.instances("A"), ValueError, "name='A'"),
    (lambda s: s.instances(NAME, tag=5), TypeError, "tag must be a str"),
    (lambda s: s.resolve("A b"), ValueError, "name='A b'"),
    (lambda s: s.resolve(["users"]), TypeError, "name must be a str"),
    (lambda s: s.resolve(NAME, tag=""), ValueError, "tag must have 1 to 64"),
    (lambda s: s.resolve(NAME, tag=["eu"]), TypeError, "tag must be a str"),
    (lambda s: s.resolve(NAME, pick="best"), ValueError, "pick='best'"),
    (lambda s: s.resolve(NAME, exclude=["a"]), ValueError, "exclude='a': must be an instance"),
    (lambda s: s.use(NAME, pick="best"), ValueError, "pick='best'"),
    (lambda s: s.attempts("A"), ValueError, "name='A'"),
    (lambda s: s.attempts(NAME, attempts=0), ValueError, "attempts=0"),
    (lambda s: s.attempts(NAME, attempts=101), ValueError, "attempts=101: must be from 1 to 100"),
    (lambda s: s.attempts(NAME, idempotent="yes"), ValueError, "idempotent='yes'"),
    (lambda s: s.attempts(NAME, tag=5), TypeError, "tag must be a str"),
    (lambda s: s.attempts(NAME, pick="x"), ValueError, "pick='x'"),
    (lambda s: s.attempts(NAME, unsent=("x",)), ValueError, "unsent=.*a type of errors"),
    (lambda s: s.attempts(NAME, failures=5), ValueError, "failures=5"),
    (lambda s: s.report_failure("a"), ValueError, "instance='a'"),
    (lambda s: s.report_success(None), ValueError, "instance=None"),
    (lambda s: s.watch("A"), ValueError, "name='A'"),
]


@pytest.mark.parametrize(("call", "kind", "text"), WRONG)
def test_wrong_argument_is_refused_and_changes_nothing(
    cluster: MakeCluster, call: Call, kind: type[Exception], text: str
) -> None:
    crew = Crew(cluster(1))
    crew[0].register(NAME, "here:80")
    with pytest.raises(kind, match=text):
        call(crew[0])
    assert crew.listed(0) == ["here:80"]


def test_deep_meta_is_refused_here_and_not_by_peers(cluster: MakeCluster) -> None:
    crew = Crew(cluster(2))
    with pytest.raises(ValueError, match="nested deeper"):
        register_deeper_and_deeper(crew[0])
    crew.cluster.settle()
    deepest = len(crew.listed(1))
    assert deepest == len(crew.listed(0)) > 3


def register_deeper_and_deeper(services: adsum.Services) -> None:
    meta: dict[str, Any] = {}
    for depth in range(200):
        services.register(NAME, f"h{depth}", meta=meta)
        meta = {"x": meta}


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.register(NAME, "a"),
        lambda s: s.instances(NAME),
        lambda s: s.resolve(NAME),
        lambda s: s.use(NAME),
        lambda s: next(s.attempts(NAME)),
        lambda s: s.watch(NAME),
    ],
)
def test_node_that_does_not_run_raises(call: Call) -> None:
    with pytest.raises(adsum.NodeNotRunningError):
        call(adsum.Services(node()))


def test_wrong_thread_raises_and_the_portal_resolves() -> None:
    async def main() -> None:
        own = node()
        services, portal = adsum.Services(own), adsum.Portal(own)
        async with own, services.register(NAME, "here:80") as registration:
            found = await asyncio.to_thread(portal.call, services.resolve, NAME)
            assert found.address == "here:80"
            errors = list[BaseException]()

            def misuse() -> None:
                for call in (lambda: services.resolve(NAME), registration.withdraw):
                    try:
                        call()
                    except adsum.WrongThreadError as error:
                        errors.append(error)

            thread = threading.Thread(target=misuse)
            thread.start()
            await asyncio.to_thread(thread.join)
            assert len(errors) == 2
            assert registration.active
        portal.close()

    run(main())


def test_error_is_copied_with_its_numbers() -> None:
    error = adsum.NoInstanceError("no instance", NAME, "eu", 3)
    copied = pickle.loads(pickle.dumps(error))
    assert (str(copied), copied.name, copied.tag, copied.listed) == ("no instance", NAME, "eu", 3)


def test_objects_show_themselves() -> None:
    assert repr(adsum.Services(node())).startswith("<Services on <Node")
