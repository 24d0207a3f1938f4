"""Servers without lifespan: the log names the remedy, and the remedy works under Daphne.

Django has none under uvicorn either.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

import adsum
from tests.support.environment import RUNTIME_DIR
from tests.support.markdown_pages import ROOT, blocks
from tests.support.ports import free_port
from tests.support.waiting import DEADLINE, until

from .channel_client import channel_client
from .example_clients import status_of, website
from .example_processes import Environment, program
from .readme_app import write_application

pytestmark = pytest.mark.processes


def daphne(app: str, port: int) -> list[str]:
    return ["-m", "daphne", "-b", "127.0.0.1", "-p", str(port), app]


def test_node_that_was_never_started_is_logged_once_with_the_remedy(
    environment: Environment, tmp_path: Path
) -> None:
    write_application(tmp_path)

    async def main() -> None:
        port = free_port()
        async with program(environment, *daphne("app:app", port), directory=tmp_path) as process:
            async with website(port, "/"):
                for _ in range(3):
                    assert await status_of(channel_client(port, {"user": "ann"})) == 403
            process.terminate()
            output = (await asyncio.wait_for(process.stdout.read(), DEADLINE)).decode()
            assert output.count("the node is not running: it was never started") == 1
            assert output.count("Daphne runs no lifespan: serve `node.wrap_app(app)`") == 1

    asyncio.run(main())


@asynccontextmanager
async def patient_member(environment: Environment) -> AsyncIterator[adsum.Presence]:
    """A member of the cluster that shows presences until their node says goodbye."""
    async with adsum.Node(
        cluster=environment["ADSUM_CLUSTER"],
        runtime_dir=environment[RUNTIME_DIR],
        down_after=600.0,
        link_grace=600.0,
    ) as node:
        yield adsum.Presence(node)


def has_left(node: adsum.Node) -> bool:
    """Whether one of three members has said goodbye."""
    shown = [member for member in node.members() if member.status != "left"]
    return len(shown) == 2


@pytest.mark.parametrize(("linger", "after"), [("0", ["ann"]), ("60", ["ann", "bob"])])
def test_wrapped_application_is_in_the_cluster_and_says_goodbye(
    environment: Environment, tmp_path: Path, linger: str, after: list[str]
) -> None:
    write_application(tmp_path)
    environment["ADSUM_LINGER"] = linger
    page = ROOT / "docs/deployment.md"
    (line,) = (block.text for block in blocks(page) if "node.wrap_app(" in block.text)
    with (tmp_path / "app.py").open("a") as file:
        file.write(f"\n\napplication = app\n{line}\n")

    async def main() -> None:
        one, other = free_port(), free_port()
        serve = partial(program, environment, directory=tmp_path)
        async with (
            patient_member(environment) as presence,
            serve(*daphne("app:application", one)),
            serve(*daphne("app:application", other)) as ending,
            website(one, "/"),
            website(other, "/"),
            channel_client(one, {"user": "ann"}) as ann,
            channel_client(other, {"user": "bob"}) as bob,
        ):
            for each in (ann, bob):
                await each.join("room:1")
            for each in (ann, bob):
                await each.sees("room:1", "ann", "bob")
            await until(lambda: list(presence.list("room:1")) == ["ann", "bob"], "both are listed")
            ending.terminate()
            await until(lambda: has_left(presence.node), "a goodbye")
            assert list(presence.list("room:1")) == after
            await ann.sees("room:1", *after)
            assert await asyncio.wait_for(ending.wait(), DEADLINE) == 0

    asyncio.run(main())


DJANGO = """
import os
import sys

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.management import execute_from_command_line
from django.http import JsonResponse
from django.urls import path

import adsum

node = adsum.Node()
presence = adsum.Presence(node)


async def enter(request, key):
    presence.track("room", key, owner="all")
    return JsonResponse({"pid": os.getpid(), "room": dict(presence.list("room"))})


urlpatterns = [path("<str:key>", enter)]
settings.configure(
    DEBUG=True,
    SECRET_KEY="x" * 50,
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["127.0.0.1"],
    MIDDLEWARE=[],
    INSTALLED_APPS=["daphne"],
    ASGI_APPLICATION=f"{__name__}.application",
)
application = node.wrap_app(get_asgi_application())
if __name__ == "__main__":
    execute_from_command_line(sys.argv)
"""


@pytest.mark.parametrize(
    "command",
    [["-m", "uvicorn", "asgi:application", "--port"], ["asgi.py", "runserver"]],
    ids=["uvicorn", "runserver"],
)
def test_wrapped_django_says_goodbye(
    environment: Environment, tmp_path: Path, command: list[str]
) -> None:
    # The reloader of `runserver` runs the server in a daemon thread of a second process.
    (tmp_path / "asgi.py").write_text(DJANGO)

    async def main() -> None:
        port = free_port()
        async with (
            patient_member(environment) as presence,
            program(environment, *command, str(port), directory=tmp_path) as process,
            website(port, "/ann", lambda answer: list(answer["room"]) == ["ann"]) as web,
        ):
            await until(lambda: list(presence.list("room")) == ["ann"], "ann is listed")
            os.kill((await web.get("/bob")).json()["pid"], signal.SIGTERM)
            await until(lambda: presence.list("room") == {}, "a goodbye")
            output = (await asyncio.wait_for(process.stdout.read(), DEADLINE)).decode()
            assert "Traceback" not in output, output

    asyncio.run(main())
