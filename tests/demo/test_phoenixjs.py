"""phoenix.js is installed once, whole, and with advice where it cannot be."""

import base64
import hashlib
import importlib.util
import io
import json
import re
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from adsum.cli import phoenixjs
from adsum.cli.phoenixjs import InstallError, install, node_path

ROOT = Path(__file__).parents[2]
FILES = {"phoenix.mjs", "phoenix.cjs.js", "phoenix.min.js"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def no_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing listens there, and npm has nothing in store."""
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:1/")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))


@pytest.mark.processes
def test_installed_version_is_the_pinned_one() -> None:
    static = install()
    assert {file.name for file in static.iterdir()} >= FILES
    assert '"version": "1.8.16"' in (static.parents[1] / "package.json").read_text()
    version = subprocess.run([node_path(), "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("v")


@pytest.mark.processes
def test_several_processes_may_install_at_once_and_the_next_one_needs_no_npm(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", "from adsum.cli.phoenixjs import install; print(install())"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    places = {process.communicate()[0].strip() for process in running}
    monkeypatch.setattr(phoenixjs, "_npm", None)  # calling it would fail
    assert places == {str(install())}
    assert [place.name for place in (cache / "adsum").iterdir()] == ["phoenix-1.8.16-6cd34991"]


@pytest.mark.processes
@pytest.mark.usefixtures("no_registry")
def test_missing_npm_registry_is_reported_and_leaks_nothing(cache: Path) -> None:
    with pytest.raises(InstallError, match=r"could not fetch phoenix@1\.8\.16(.|\n)*ECONNREFUSED"):
        install()
    assert not [*(cache / "adsum").iterdir()]


@pytest.mark.processes
@pytest.mark.parametrize("claimed", ["altered", "pinned"])
def test_altered_package_is_refused(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, claimed: str
) -> None:
    """Whether a registry names the digest of what it serves, or the one that it should have."""
    with registry(altered_package(), claimed) as url:
        monkeypatch.setenv("npm_config_registry", url)
        monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
        with pytest.raises(
            InstallError, match=r"whose digest differs from the known one, so nothing was installed"
        ):
            install()
    assert not [*(cache / "adsum").iterdir()]


def altered_package() -> bytes:
    """A package of the right name and version, with other files."""
    about = json.dumps({"name": "phoenix", "version": phoenixjs.VERSION}).encode()
    files = {"package.json": about, "priv/static/phoenix.mjs": b"export const altered = true"}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


@contextmanager
def registry(package: bytes, claimed: str) -> Iterator[str]:
    """A registry on this host that serves a package; its address.

    Args:
        package: The package.
        claimed: Whether it names the digest of the ``altered`` package, or the ``pinned`` one.
    """
    own = "sha512-" + base64.b64encode(hashlib.sha512(package).digest()).decode()
    integrity = {"altered": own, "pinned": phoenixjs.INTEGRITY}[claimed]

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            tarball = f"http://127.0.0.1:{self.server.server_port}/phoenix.tgz"  # type: ignore[attr-defined]
            dist = {"tarball": tarball, "integrity": integrity}
            version = {"name": "phoenix", "version": phoenixjs.VERSION, "dist": dist}
            about = {"name": "phoenix", "versions": {phoenixjs.VERSION: version}}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(package if "tgz" in self.path else json.dumps(about).encode())

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def test_phoenixjs_accepts_every_key() -> None:
    """Before 1.8.9 it throws on keys such as ``constructor``, as docs/channels.md says."""
    least = re.search(r"phoenix\.js ([\d.]+) or newer", (ROOT / "docs/channels.md").read_text())
    assert least is not None
    assert version_of(phoenixjs.VERSION) >= version_of(least[1]) == (1, 8, 9)


@pytest.mark.processes
@pytest.mark.parametrize("key", ["constructor", "__proto__", "toString"])
def test_phoenixjs_lists_keys_that_objects_inherit(key: str) -> None:
    script = """
        const {Presence} = await import(process.argv[1])
        const key = process.argv[2]
        const entry = (ref) => JSON.parse(`{"${key}": {"metas": [{"phx_ref": "${ref}"}]}}`)
        const state = Presence.syncState({}, entry(1))
        Presence.syncDiff(state, {joins: entry(2), leaves: entry(1)})
        console.log(Presence.list(state, (key, {metas}) => key + metas.map(it => it.phx_ref)))
    """
    library = str(install() / "phoenix.mjs")
    command = [str(node_path()), "--input-type=module", "-e", script, library, key]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == f"[ '{key}2' ]\n", done.stderr


def version_of(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


@pytest.mark.usefixtures("cache")
def test_without_node_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InstallError, match=r"pip install '\.\[demo\]'"):
        install()


def test_cache_that_cannot_be_written_is_named(cache: Path) -> None:
    (cache / "adsum").write_text("in the way")
    with pytest.raises(InstallError, match="cannot be installed in"):
        install()


def test_relative_cache_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    place = tmp_path / ".cache" / "adsum" / "phoenix-1.8.16-6cd34991"
    place.mkdir(parents=True)
    assert install() == place / "node_modules" / "phoenix" / "priv" / "static"
