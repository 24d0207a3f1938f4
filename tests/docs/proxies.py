"""The proxies of docs/deployment.md: real programs, with the page's own snippets, on free ports."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
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
#: The proxies, in the order of the page.
NAMES = ["nginx", "haproxy", "caddy"]
_PAGE = ROOT / "docs/deployment.md"
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
#: What Caddy needs before the snippet: a port of its own for reloads.
_CADDY = "{{\n    admin 127.0.0.1:{admin}\n}}\n{snippet}"
#: The arguments with which each proxy runs in the foreground, and takes a reload.
_COMMANDS = {
    "nginx": ["-e", "stderr", "-p", "{directory}", "-c", "{file}"],
    "haproxy": ["-W", "-db", "-f", "{file}"],
    "caddy": ["run", "--adapter", "caddyfile", "--config", "{file}"],
}
#: The signal that lets a proxy read its file again; Caddy has a command.
_RELOADS = {"nginx": signal.SIGHUP, "haproxy": signal.SIGUSR2}
#: Programs of the system, which are not on the path of every user.
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
_NOBODY = 65534


class Proxy:
    """A running proxy with the snippet of the page.

    Args:
        name: One of `NAMES`.
        directory: Where its files are, readable for all.
        ports: The port to take instead of each of those in the snippet.
    """

    def __init__(self, name: str, directory: Path, ports: dict[int, int]) -> None:
        program = shutil.which(name, path=_PATH)
        if program is None:
            pytest.skip(f"needs the package {name}")
        self.name = name
        self._program = program
        self._directory = directory
        self._ports = ports
        self._admin = free_port()
        self._file = directory / f"{name}.conf"
        self._log = directory / f"{name}.log"

    async def start(self) -> None:
        self._write(prefixed=False)
        arguments = [
            one.format(directory=self._directory, file=self._file) for one in _COMMANDS[self.name]
        ]
        with self._log.open("w") as output:  # a pipe that nobody reads would stop it
            self._process = await self._run(*arguments, output=output)

    async def stop(self) -> None:
        if self._process.returncode is None:
            self._process.terminate()
        await asyncio.wait_for(self._process.wait(), DEADLINE)

    async def reload(self, *, prefixed: bool = False) -> None:
        """Let it read its file again, perhaps with the page's lines for a prefix."""
        self._write(prefixed)
        if self.name in _RELOADS:
            self._process.send_signal(_RELOADS[self.name])
            return
        address = f"127.0.0.1:{self._admin}"
        arguments = ["reload", "--adapter", "caddyfile", "--config", str(self._file)]
        reloading = await self._run(
            *arguments, "--address", address, output=asyncio.subprocess.PIPE
        )
        output, _ = await asyncio.wait_for(reloading.communicate(), DEADLINE)
        assert reloading.returncode == 0, output.decode()

    def check(self) -> None:
        """Fail if it has ended."""
        assert self._process.returncode is None, self._log.read_text()

    def version(self) -> str:
        """The number of its version, as it prints it."""
        asked = "version" if self.name == "caddy" else "-v"
        done = subprocess.run([self._program, asked], capture_output=True, text=True, check=True)
        found = re.search(r"\d+\.\d+\.\d+", done.stdout + done.stderr)
        assert found, done
        return found[0]

    def _write(self, prefixed: bool) -> None:
        snippet = _snippet(self.name)
        if prefixed:
            snippet = _changed(snippet, _prefix_lines(self.name))
        snippet = _PORT.sub(lambda port: str(self._ports[int(port[0])]), snippet)
        if self.name == "nginx":
            snippet = _NGINX.format(directory=self._directory, snippet=snippet)
        elif self.name == "caddy":
            snippet = _CADDY.format(admin=self._admin, snippet=snippet)
        self._file.write_text(snippet)

    async def _run(self, *arguments: str, output: Any) -> asyncio.subprocess.Process:
        home = {name: str(self._directory) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
        return await asyncio.create_subprocess_exec(
            self._program,
            *arguments,
            stdout=output,
            stderr=output,
            env={**os.environ, **home},
            **_unprivileged(self._directory),
        )


@asynccontextmanager
async def proxy(name: str, directory: Path, ports: dict[int, int]) -> AsyncIterator[Proxy]:
    """A proxy that ends with the block; see `Proxy`."""
    running = Proxy(name, directory, ports)
    await running.start()
    try:
        yield running
        running.check()
    finally:
        await running.stop()


def free_ports() -> dict[int, int]:
    """A free port for each in the snippets."""
    return {port: free_port() for port in (FRONT, *BACK)}


def _snippet(name: str) -> str:
    """The configuration on the page."""
    (text,) = (block.text for block in blocks(_PAGE) if block.info == name)
    assert {int(port) for port in _PORT.findall(text)} == {FRONT, *BACK}
    return text


def _prefix_lines(name: str) -> str:
    """The change of the configuration for a prefix, on the page."""
    changes = [block.text for block in blocks(_PAGE) if block.info == "diff"]
    return changes[NAMES.index(name)]


def _changed(text: str, change: str) -> str:
    """A configuration with the lines of a diff applied: those before its additions are found."""
    kept = "".join(line[1:] for line in change.splitlines(True) if line[0] != "+")
    new = "".join(line[1:] for line in change.splitlines(True) if line[0] != "-")
    assert text.count(kept) == 1, f"the page has no such lines:\n{kept}"
    return text.replace(kept, new)


def _unprivileged(directory: Path) -> dict[str, Any]:
    """What lets a process run as nobody, if this one is root."""
    if os.geteuid() != 0:
        return {}
    os.chown(directory, _NOBODY, _NOBODY)
    return {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
