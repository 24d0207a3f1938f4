"""Run targets of make on a bare machine: a new Debian 12 with python3, make and git, and no more.

    python -m tests.bare test

The machine is a folder that debootstrap fills, and that is removed at the end. Its mirror is that
of this machine; the settings of pip, npm, certificates and proxies are passed on as variables, and
files and folders that they name are mounted, read-only. It takes root.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
PACKAGES = "python3,make,git"
#: Where files of this machine are seen in the bare one: no package writes there.
SHARED = "/machine"
PLAIN = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
#: Variables that say where packages are found, and how.
_PASSED_ON = re.compile(
    r"(pip|npm_config)_\w+|ssl_cert_file|node_extra_ca_certs|(https?|no)_proxy", re.IGNORECASE
)
#: A line of `pip config list`.
_SETTING = re.compile(r"(?P<source>\S*)\.(?P<name>[\w-]+)='(?P<value>.*)'")
#: An absolute path in a value, alone, in a list, or in a URL of a file.
_PATH = re.compile(r"(?:(?<=\s)|(?<=file://)|^)/[^\s]+")


def output(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def mirror() -> str:
    """The mirror of Debian that this machine uses."""
    named = output("apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)")
    found = [line.split()[1] for line in named.splitlines() if line.startswith("Debian ")]
    if not found:
        sys.exit("the apt sources of this machine name no mirror of Debian")
    return found[0]


def settings() -> dict[str, str]:
    """The variables to pass on; the settings in files of pip are among them."""
    lines = output(sys.executable, "-m", "pip", "config", "list").splitlines()
    found = [match for line in lines if (match := _SETTING.fullmatch(line))]
    of_files = {f"PIP_{match['name'].upper().replace('-', '_')}": match["value"] for match in found}
    passed_on = {name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)}
    return of_files | passed_on


def shared(values: list[str]) -> Iterator[Path]:
    """The files and folders of this machine that values name."""
    for value in values:
        for match in _PATH.finditer(value):
            path = Path(match[0])
            # An index of packages in a folder has its files beside it.
            path = path.parent if value[: match.start()].endswith("file://") else path
            if path.exists():
                yield path


def mounts(machine: Path, paths: set[Path]) -> Iterator[list[str]]:
    """The commands that mount what a bare machine needs of this one."""
    for path in sorted(paths):
        place = Path(f"{machine}{SHARED}{path}")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir(exist_ok=True) if path.is_dir() else place.touch()
        yield ["mount", "--bind", "-o", "ro", str(path), str(place)]
    yield ["mount", "-t", "proc", "proc", f"{machine}/proc"]
    for folder in ("sys", "dev"):
        yield ["mount", "--rbind", f"/{folder}", f"{machine}/{folder}"]


def copy_project(machine: Path) -> None:
    """Copy the files of the project, uncommitted ones included, as `git clone` would."""
    listed = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    with subprocess.Popen(listed, cwd=ROOT, stdout=subprocess.PIPE) as files:
        (machine / "adsum").mkdir()
        packed = subprocess.run(
            ["tar", "--null", "-T", "-", "-c"],
            cwd=ROOT,
            stdin=files.stdout,
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
    subprocess.run(["tar", "-x", "-C", machine / "adsum"], input=packed, check=True)


def make(machine: Path, targets: list[str]) -> int:
    """Run make on the machine; returns its exit code.

    Mounts and processes are in namespaces that end with it, so that only files are left.
    """
    passed_on = settings()
    paths = set(shared([*passed_on.values()]))
    variables = PLAIN | {
        name: _PATH.sub(lambda path: SHARED + path[0] if Path(path[0]).exists() else path[0], value)
        for name, value in passed_on.items()
    }
    given = [f"{name}={value}" for name, value in variables.items()]
    run = ["exec", "chroot", str(machine), "env", "-i", *given, "make", "-C", "/adsum", *targets]
    script = "\n".join(shlex.join(command) for command in [*mounts(machine, paths), run])
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    return subprocess.run([*namespaces, "sh", "-ec", script], check=False).returncode


def main() -> int:
    if os.geteuid() != 0:
        sys.exit("debootstrap, mount and chroot take root")
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    with TemporaryDirectory(prefix="adsum-bare-") as folder:
        machine = Path(folder, "root")
        options = ["--variant=minbase", f"--include={PACKAGES}"]
        subprocess.run(
            ["debootstrap", *options, "bookworm", machine, mirror()],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        for file in ("resolv.conf", "hosts"):
            (machine / "etc" / file).write_bytes(Path("/etc", file).read_bytes())
        copy_project(machine)
        return make(machine, sys.argv[1:] or ["test"])


if __name__ == "__main__":
    sys.exit(main())
