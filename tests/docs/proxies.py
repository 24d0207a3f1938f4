"""The proxies of docs/deployment.md: real programs, with the page's own snippets, on free ports."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.markdown_pages import ROOT, blocks
from tests.support.ports import free_port
from tests.support.waiting import DEADLINE

#: The ports in the snippets: of the proxy, and of the servers behind it.
FRONT, *BACK = 8000, 8001, 8002
_PORT = re.compile(rf"\b(?:{FRONT}|{BACK[0]}|{BACK[1]})\b")
#: What nginx needs around the snippet to run in the foreground, as any user, in a directory.
_NGINX = """
daemon off;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    {snippet}
}}
"""
_COMMANDS = {
    "nginx": ["-e", "stderr", "-p", "{directory}", "-c", "{file}"],
    "haproxy": ["-db", "-f", "{file}"],
}
#: Programs of the system, which are not on the path of every user.
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
_NOBODY = 65534


@asynccontextmanager
async def proxy(name: str, directory: Path, ports: dict[int, int]) -> AsyncIterator[None]:
    """A proxy with the snippet of the page; it ends with the block.

    Args:
        name: ``nginx`` or ``haproxy``.
        directory: Where its files are, readable for all.
        ports: The port to take instead of each of those in the snippet.
    """
    program = shutil.which(name, path=_PATH)
    if program is None:
        pytest.skip(f"needs the package {name}")
    file = directory / f"{name}.conf"
    snippet = _snippet(name, ports)
    file.write_text(
        _NGINX.format(directory=directory, snippet=snippet) if name == "nginx" else snippet
    )
    arguments = [one.format(directory=directory, file=file) for one in _COMMANDS[name]]
    log = directory / f"{name}.log"
    with log.open("w") as output:  # a pipe that nobody reads would stop it
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            stdout=output,
            stderr=output,
            **_unprivileged(directory),
        )
    try:
        yield
        assert process.returncode is None, log.read_text()
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), DEADLINE)


def free_ports() -> dict[int, int]:
    """A free port for each in the snippets."""
    return {port: free_port() for port in (FRONT, *BACK)}


def _snippet(name: str, ports: dict[int, int]) -> str:
    page = ROOT / "docs/deployment.md"
    (text,) = (block.text for block in blocks(page) if block.info == name)
    assert {int(port) for port in _PORT.findall(text)} == ports.keys()
    return _PORT.sub(lambda port: str(ports[int(port[0])]), text)


def _unprivileged(directory: Path) -> dict[str, Any]:
    """What lets a process run as nobody, if this one is root."""
    if os.geteuid() != 0:
        return {}
    os.chown(directory, _NOBODY, _NOBODY)
    return {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
