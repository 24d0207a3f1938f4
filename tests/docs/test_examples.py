"""The examples start and answer, as their first lines say that they are started."""

import asyncio
import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.ports import free_port
from tests.support.waiting import DEADLINE

from .example_clients import website
from .example_processes import EXAMPLES, WORKERS, Environment, program, server

pytestmark = pytest.mark.processes
NO_PROXY = build_opener(ProxyHandler({}))


def test_enriched_looks_names_up_in_batches(environment: Environment) -> None:
    command = [sys.executable, str(EXAMPLES / "enriched.py")]
    ended = subprocess.run(
        command, env=environment, timeout=DEADLINE, capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines() == [
        "  (one query for 3 users)",
        "present: Ann, Bob, Cleo",
        "  (one query for 3 users)",
        "first diff, joined: Ann, Bob, Cleo",
        "  (one query for 3 users)",
        "second diff, joined: Dai, 99 left: Bob",
    ]


def test_plain_asyncio_asks_live_workers_only(environment: Environment) -> None:
    async def main() -> None:
        async with (
            program(environment, "plain_asyncio.py", "worker") as first,
            program(environment, "plain_asyncio.py", "ask") as asker,
        ):
            await line_of(first, "serving on")
            joined = await line_of(asker, "joined:")
            await line_of(asker, f"by process {first.pid}")
            first.send_signal(signal.SIGKILL)
            assert await line_of(asker, "left:") == joined.replace("joined", "left")

    asyncio.run(main())


@pytest.mark.skipif(importlib.util.find_spec("fastapi") is None, reason="needs fastapi")
@pytest.mark.parametrize(
    ("tests", "passed"), [("test_fastapi_app.py", 3), ("test_fastapi_channels.py", 7)]
)
def test_tests_of_an_application_pass(environment: Environment, tests: str, passed: int) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    ended = subprocess.run(
        [*command, "--rootdir", str(EXAMPLES), str(EXAMPLES / tests)],
        env=environment,
        cwd=EXAMPLES,
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert f"{passed} passed" in ended.stdout, ended.stdout


@pytest.mark.skipif(importlib.util.find_spec("fastapi") is None, reason="needs fastapi")
def test_fastapi_shows_the_same_in_every_worker(environment: Environment) -> None:
    async def main() -> None:
        async with server(environment, "fastapi_app:app") as port:
            await every_worker(port, "/rooms/1", lambda answer: moods(answer) == {})
            address = f"ws://127.0.0.1:{port}/rooms/1/"
            async with connect(address + "ann") as ann, connect(address + quote("bob b")) as bob:
                await ann.send("glad")
                both = {"ann": "glad", "bob b": "here"}
                await message_of(bob, lambda list: moods(list) == both)
                await every_worker(port, "/rooms/1", lambda answer: moods(answer) == both)
            await every_worker(port, "/rooms/1", lambda answer: moods(answer) == {})
            assert b"<title>" in await asyncio.to_thread(request, port, "/")

    asyncio.run(main())


def test_starlette_lists_workers_and_messages(environment: Environment) -> None:
    async def main() -> None:
        async with server(environment, "starlette_app:app") as port:
            all_there = await every_worker(
                port, "/workers", lambda answer: len(answer["workers"]) == WORKERS
            )
            assert {answer["me"] for answer in all_there} == set(all_there[0]["workers"])
            address = f"ws://127.0.0.1:{port}/rooms/1/"
            async with connect(address + "ann") as ann, connect(address + "bob") as bob:
                await message_of(ann, lambda message: "bob" in message.get("joins", {}))
                await message_of(bob, lambda message: "ann" in message.get("joins", {}))
                answer = await asyncio.to_thread(request, port, "/rooms/1", b"hi")
                assert json.loads(answer) == {"workers_missed": 0}
                for visitor in (ann, bob):
                    await message_of(visitor, lambda message: message.get("said") == "hi")

    asyncio.run(main())


@pytest.mark.skipif(importlib.util.find_spec("fastapi") is None, reason="needs fastapi")
@pytest.mark.parametrize(
    ("app", "path", "status"),
    [
        ("fastapi_app:app", "/rooms/", 422),
        ("starlette_app:app", "/rooms/", 404),
        ("documents_as_presences:app", "/documents/", 404),
    ],
)
def test_name_that_is_too_long_is_refused(
    environment: Environment, app: str, path: str, status: int
) -> None:
    async def main() -> None:
        async with server(environment, app) as port:
            long = "x" * 1100
            ready = "/workers" if app == "starlette_app:app" else f"{path}1"
            method = "POST" if app == "starlette_app:app" else "GET"
            async with website(port, ready) as web:
                assert (await web.request(method, path + long)).status_code == status
            for names in (f"{long}/ann", f"1/{long}"):
                with pytest.raises(InvalidStatus) as refused:
                    await connect(f"ws://127.0.0.1:{port}{path}{names}", proxy=None)
                assert refused.value.response.status_code == 403

    asyncio.run(main())


@pytest.mark.parametrize("given", ["", "short"])
@pytest.mark.parametrize(
    ("app", "variable"),
    [("fastapi_channels:app", "APP_SECRET"), ("django_app:application", "SECRET_KEY")],
)
def test_without_a_secret_to_sign_with_an_example_does_not_start(
    environment: Environment, app: str, variable: str, given: str
) -> None:
    async def main() -> None:
        environment[variable] = given
        command = ["-m", "uvicorn", app, "--port", str(free_port()), "--workers", "2"]
        async with program(environment, *command) as process:
            output = (await asyncio.wait_for(process.stdout.read(), DEADLINE)).decode()
            assert f"{variable}: must be set, to 32 characters or more" in output
            assert "Traceback" not in output
            # Workers are not started again and again.
            await asyncio.wait_for(process.wait(), DEADLINE)

    asyncio.run(main())


def moods(answer: dict[str, Any]) -> dict[str, str]:
    entries = answer.get("present", answer)
    return {key: entry["metas"][0]["mood"] for key, entry in entries.items()}


def request(port: int, path: str, body: bytes | None = None) -> bytes:
    """The answer to one request, over a connection of its own."""
    with NO_PROXY.open(Request(f"http://127.0.0.1:{port}{path}", body), timeout=10) as answer:
        content: bytes = answer.read()
    return content


async def every_worker(port: int, path: str, right: Callable[[Any], bool]) -> list[Any]:
    """Ask until as many workers as there are have given the right answer; returns the answers."""
    answers: dict[str, Any] = {}
    async with asyncio.timeout(DEADLINE):
        while len(answers) < WORKERS:
            try:
                answer = json.loads(await asyncio.to_thread(request, port, path))
            except (URLError, ConnectionError):  # not up yet
                await asyncio.sleep(0.05)
                continue
            if right(answer):
                answers[answer.get("worker") or answer["me"]] = answer
            else:
                await asyncio.sleep(0.01)
    return list(answers.values())


async def message_of(visitor: Any, right: Callable[[Any], bool]) -> None:
    """Read messages until the right one comes."""
    async with asyncio.timeout(DEADLINE):
        while not right(json.loads(await visitor.recv())):
            pass


async def line_of(process: Any, text: str) -> str:
    """Read lines until one has the text."""
    async with asyncio.timeout(DEADLINE):
        line: str = (await process.stdout.readline()).decode()
        while text not in line:
            assert line, f"the program ended before it said {text!r}"
            line = (await process.stdout.readline()).decode()
    return line
