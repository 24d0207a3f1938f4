"""The example for Django: sessions, channels and system checks, under two servers."""

import asyncio
import os
import signal
import subprocess
import sys

import httpx2
import pytest

from tests.support.ports import free_port
from tests.support.waiting import DEADLINE, until

from .channel_client import channel_client
from .example_clients import django_cookie, on_all_workers, status_of, website
from .example_processes import EXAMPLES, WORKERS, Environment, program, server, serving

pytestmark = pytest.mark.processes


def test_django_accepts_sessions_and_broadcasts_to_rooms(environment: Environment) -> None:
    async def main() -> None:
        async with (
            server(
                environment, "django_app:application", "--ws-per-message-deflate", "false"
            ) as port,
            website(port, "/health", lambda it: it["members_up"] == WORKERS) as web,
        ):
            await django_scene(port, web)

    asyncio.run(main())


def test_django_runs_under_hypercorn_too(environment: Environment) -> None:
    async def main() -> None:
        port = free_port()
        options = ["--bind", f"127.0.0.1:{port}", "--workers", str(WORKERS)]
        async with (
            serving(environment, "-m", "hypercorn", "django_app:application", *options),
            website(port, "/health", lambda it: it["members_up"] == WORKERS) as web,
        ):
            await django_scene(port, web)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("options", "variables", "said"),
    [
        ([], {}, "System check identified no issues"),
        (
            [],
            {"ADSUM_LISTEN": "0.0.0.0:7400"},
            "(adsum.E001) adsum refuses its settings: ADSUM_LISTEN=",
        ),
        (
            [],
            {"ADSUM_LINGER": "soon"},
            "(adsum.E001) adsum refuses its settings: ADSUM_LINGER='soon'",
        ),
        (["--deploy"], {}, "(adsum.W001) Processes on other hosts cannot join the cluster."),
        (["--deploy"], {"ADSUM_LISTEN": "127.0.0.1:0"}, "(adsum.W002) Whoever has an account"),
    ],
    ids=["default", "no secret", "wrong linger", "no listen", "no local secret"],
)
def test_django_checks_the_settings(
    environment: Environment, options: list[str], variables: dict[str, str], said: str
) -> None:
    command = [sys.executable, "-W", "error", "django_app.py", "check", "--no-color", *options]
    ended = subprocess.run(
        command,
        cwd=EXAMPLES,
        env={**environment, **variables},
        timeout=DEADLINE,
        capture_output=True,
        text=True,
    )
    assert said in ended.stdout + ended.stderr
    assert ended.returncode == int("E0" in said)


def test_django_with_wrong_settings_does_not_start(environment: Environment) -> None:
    async def main() -> None:
        environment["ADSUM_LINGER"] = "soon"
        command = ["-m", "uvicorn", "django_app:application", "--port", str(free_port())]
        async with program(environment, *command) as process:
            output = (await asyncio.wait_for(process.stdout.read(), DEADLINE)).decode()
            assert "ADSUM_LINGER='soon': must be a number of seconds" in output
            assert "Traceback" not in output
            assert await process.wait() != 0

    asyncio.run(main())


def test_django_warns_of_a_member_that_is_down(environment: Environment) -> None:
    async def main() -> None:
        async with (
            server(environment, "django_app:application") as port,
            website(port, "/health", lambda it: it["members_up"] == WORKERS) as web,
        ):
            healthy = (await web.get("/health")).json()
            assert healthy["messages"] == []
            os.kill(healthy["worker"], signal.SIGKILL)

            async def warned() -> bool:
                try:
                    messages = (await web.get("/health")).json()["messages"]
                except httpx2.TransportError:  # it reached the one that was killed
                    return False
                return any("(adsum.W003) Members of the cluster are down" in it for it in messages)

            await until(warned)

    asyncio.run(main())


async def django_scene(port: int, web: httpx2.AsyncClient) -> None:
    """Sign in, meet, speak, and be listed."""
    assert await status_of(channel_client(port)) == 403
    forged = {"cookie": "sessionid=eyJ1c2VyIjoiYW5uIn0:1tHRC9:x"}
    assert await status_of(channel_client(port, headers=forged)) == 403
    ann, bob = await django_cookie(port, "ann"), await django_cookie(port, "bob")
    async with (
        on_all_workers(lambda: channel_client(port, headers=ann), "room:1") as anns,
        channel_client(port, headers=bob) as watcher,
    ):
        await watcher.join("room:1")
        for one in (*anns, watcher):
            await one.sees("room:1", "ann", "bob")
        await anns[0].push("room:1", "shout", {"text": "hi"})
        for one in (*anns, watcher):
            assert await one.expect("room:1", "shout") == {"user": "ann", "text": "hi"}
        assert list((await web.get("/rooms/1")).json()["present"]) == ["ann", "bob"]
        assert (await web.get(f"/rooms/{'x' * 1100}")).status_code == 404
        assert (await web.post("/rooms/1/notices", data={"text": "tea"})).status_code == 403
        csrf = bob["cookie"].split("csrftoken=")[1].split(";")[0]
        headers = {**bob, "x-csrftoken": csrf}
        said = await web.post("/rooms/1/notices", data={"text": "tea"}, headers=headers)
        assert said.status_code == 204
        for one in (*anns, watcher):
            assert await one.expect("room:1", "notice") == {"user": "bob", "text": "tea"}
