"""Imports point one way, and the core touches nothing of the world. Proved on the source text."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

import adsum

SOURCE = Path(adsum.__file__).parent

#: What each part of the package may import of the others.
LAYERS = {
    "errors": set[str](),
    "activetime": set(),
    "forks": set(),
    "collector": {"forks"},
    "quoting": set(),
    "signals": set(),
    "tasks": set(),
    "sparselog": {"forks", "quoting"},
    "arguments": {"errors", "quoting"},
    "httpanswer": {"tasks"},
    "lifespan": {"arguments"},
    "processexit": set(),
    "startingapp": {"errors", "arguments", "httpanswer", "processexit", "sparselog", "tasks"},
    "singlereader": {"errors", "forks", "tasks"},
    "values": {"quoting"},
    "replication": {"collector", "errors", "quoting", "values"},
    "transport": {"errors", "activetime", "forks", "quoting", "sparselog", "tasks", "values"},
    "bus": {"errors", "activetime", "forks", "quoting", "sparselog", "tasks", "transport"},
    "config": {"errors", "bus", "quoting", "replication", "transport", "values"},
    "driver": {
        "errors",
        "activetime",
        "bus",
        "config",
        "forks",
        "quoting",
        "replication",
        "signals",
        "sparselog",
        "tasks",
        "transport",
        "values",
    },
    "memberswatch": {"driver", "replication", "singlereader"},
    "node": {
        "errors",
        "arguments",
        "config",
        "driver",
        "forks",
        "lifespan",
        "memberswatch",
        "quoting",
        "replication",
        "signals",
        "startingapp",
        "tasks",
        "transport",
    },
    "watch": {"replication", "quoting", "singlereader", "tasks", "values"},
    "watchfeeds": {
        "driver",
        "node",
        "quoting",
        "replication",
        "singlereader",
        "sparselog",
        "tasks",
        "watch",
    },
    "topicswatch": {"driver", "quoting", "replication", "singlereader", "values", "watch"},
    "owners": {"errors", "quoting", "replication", "values"},
    "endings": {"driver", "node", "owners", "replication", "tasks", "values"},
    "tracked": {"errors", "endings", "owners", "quoting", "replication", "values"},
    "enrichment": {
        "activetime",
        "arguments",
        "quoting",
        "sparselog",
        "tasks",
        "values",
        "watch",
    },
    "presence": {
        "errors",
        "arguments",
        "driver",
        "endings",
        "enrichment",
        "node",
        "owners",
        "quoting",
        "replication",
        "sparselog",
        "topicswatch",
        "tracked",
        "values",
        "watch",
        "watchfeeds",
    },
    "pubsub": {
        "errors",
        "arguments",
        "driver",
        "node",
        "quoting",
        "replication",
        "singlereader",
        "values",
    },
    "portal": {
        "errors",
        "arguments",
        "driver",
        "enrichment",
        "forks",
        "node",
        "owners",
        "presence",
        "processexit",
        "pubsub",
        "singlereader",
        "tasks",
        "tracked",
        "values",
        "watch",
    },
    "services": {
        "errors",
        "arguments",
        "driver",
        "node",
        "quoting",
        "replication",
        "singlereader",
        "sparselog",
        "tasks",
        "values",
    },
    "integrations": {
        "errors",
        "arguments",
        "forks",
        "node",
        "portal",
        "presence",
        "processexit",
        "pubsub",
        "quoting",
        "services",
        "sparselog",
        "tasks",
        "tracked",
        "values",
    },
    "channels": {
        "errors",
        "activetime",
        "arguments",
        "driver",
        "httpanswer",
        "node",
        "owners",
        "presence",
        "pubsub",
        "quoting",
        "replication",
        "sparselog",
        "tasks",
        "tracked",
        "values",
        "watch",
    },
    "testing": {
        "",
        "errors",
        "arguments",
        "bus",
        "channels",
        "config",
        "driver",
        "replication",
        "transport",
        "values",
    },
}

#: What each file or folder of `integrations`, and each of `SERVERS`, may import of others.
EXTRAS = {
    "httpx": {"httpx"},
    "aiohttp": {"aiohttp", "yarl"},
    "broadcaster": {"broadcaster"},
    "litestar": {"litestar"},
    "socketio": {"socketio"},
    "django": {"channels", "django", "msgpack"},
    "uvicorn": {"uvicorn", "websockets"},
}
#: Files that a server imports, and nothing else.
SERVERS = {Path("channels", "uvicorn.py")}
#: The clients of the engines, imported only if a setting names their engine.
CLIENTS = {Path("bus", "natsclient.py"): {"nats"}, Path("bus", "redisclient.py"): {"redis"}}
#: The one file beside them that imports a library, if it is installed.
ACCELERATOR = SOURCE / "values" / "accelerator.py"

#: What each file and each directory of `channels` may import of the others, from the ground up.
CHANNEL_LAYERS = {
    "client": set[str](),
    "limits": set(),
    "lifecycle": set(),
    "pernode": set(),
    "wire": {"client"},
    "flow": {"wire"},
    "presence": {"flow", "wire"},
    "broadcastwindow": set(),
    "deliveries": {"flow", "wire"},
    "broadcasts": {"broadcastwindow", "deliveries", "flow", "pernode", "wire"},
    "disconnects": {"flow", "pernode"},
    "connectionregistry": {"limits", "disconnects", "flow"},
    "handlers": {"wire"},
    "channel": {"client", "handlers", "wire"},
    "routes": {"broadcasts", "channel", "wire"},
    "framescode": {"wire"},
    "socketparts": {
        "broadcasts",
        "channel",
        "connectionregistry",
        "framescode",
        "limits",
        "presence",
        "routes",
        "wire",
    },
    "sender": {"wire"},
    "channelcode": {"channel", "flow", "handlers"},
    "process": {
        "channel",
        "channelcode",
        "client",
        "flow",
        "lifecycle",
        "presence",
        "sender",
        "socketparts",
        "wire",
    },
    "connection": {"client", "flow", "process", "socketparts", "wire"},
    "carriers": {"client", "connection", "flow", "pernode", "socketparts", "wire"},
    "clientadmission": {"client", "socketparts", "wire"},
    "uvicorn": {"flow", "wire"},
    "socket": {
        "clientadmission",
        "carriers",
        "channel",
        "limits",
        "connection",
        "disconnects",
        "socketparts",
        "wire",
    },
}

#: All that the core may import from the standard library: no clock, no I/O, no randomness of its
#: own (`random` for the type of the generator that it is given).
PURE = {
    "bisect",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "hashlib",
    "heapq",
    "itertools",
    "json",
    "math",
    "operator",
    "random",
    "typing",
}
FROM_IMPURE = {"random": {"Random"}}
#: The files of virtual links that are as pure, and take these beside.
BUS_CORE = [
    "busdials",
    "busevents",
    "buscore",
    "busmessages",
    "busring",
    "bustopics",
    "buswindows",
    "dialqueue",
    "limits",
    "topicroom",
    "topicslots",
    "virtuallink",
    "waitingbulletins",
]
PURE_FOR_BUS = {"hmac", "re", "struct"}

#: Calls that reach the world without an import.
BANNED_CALLS = {"open", "print", "input", "exec", "eval", "__import__"}


@cache
def imports(path: Path) -> list[tuple[str, set[str]]]:
    """The absolute modules that a file imports, with the names taken from each."""
    return list(_imports(path))


def _imports(path: Path) -> Iterator[tuple[str, set[str]]]:
    package = ("adsum", *path.relative_to(SOURCE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, {"*"}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module, {alias.name for alias in node.names}


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def files_of(part: str) -> list[Path]:
    single = SOURCE / f"{part}.py"
    return [single] if single.exists() else sorted((SOURCE / part).rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_graph() -> dict[str, set[str]]:
    """The files that each file imports, also for type checkers only and inside functions."""
    files = {module_of(path): path for path in sorted(SOURCE.rglob("*.py"))}
    graph: dict[str, set[str]] = {}
    for importer, path in files.items():
        imported = graph[importer] = set()
        for module, names in imports(path):
            modules = {f"{module}.{name}" for name in names} & files.keys()
            if module in files and len(modules) < len(names):
                modules.add(module)
            imported |= modules
    return graph


def cycles(graph: Mapping[str, set[str]]) -> set[frozenset[str]]:
    """The largest sets of files in which each reaches each other one by imports."""
    reached = {start: reachable(graph, start) for start in graph}
    return {
        frozenset(other for other in graph if other in reached[file] and file in reached[other])
        for file in graph
        if file in reached[file]
    }


def reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    found, unvisited = set[str](), [start]
    while unvisited:
        for module in graph[unvisited.pop()] - found:
            found.add(module)
            unvisited.append(module)
    return found


def test_no_file_imports_itself_through_others() -> None:
    found = cycles(import_graph())
    assert not found, f"these files import each other: {sorted(map(sorted, found))}"


def test_cycle_of_files_is_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set[str](), "e": {"e"}}
    assert cycles(graph) == {frozenset("bc"), frozenset("e")}


@pytest.mark.parametrize("part", LAYERS)
def test_imports_point_downwards_only(part: str) -> None:
    for path in files_of(part):
        for module, _ in imports(path):
            if module.split(".")[0] == "adsum":
                allowed = LAYERS[part] | {part}
                assert part_of(module) in allowed, f"{path.name} imports {module}"


@pytest.mark.parametrize("layer", CHANNEL_LAYERS)
def test_layers_of_channels_import_lower_ones_only(layer: str) -> None:
    layers = list(CHANNEL_LAYERS)
    assert all(layers.index(lower) < layers.index(layer) for lower in CHANNEL_LAYERS[layer])
    channels = SOURCE / "channels"
    single = channels / f"{layer}.py"
    for path in [single] if single.exists() else (channels / layer).rglob("*.py"):
        for module in sorted(import_graph()[module_of(path)]):
            parts = module.split(".")
            if parts[1:2] == ["channels"] and len(parts) > 2:
                allowed = CHANNEL_LAYERS[layer] | {layer}
                assert parts[2] in allowed, f"{path.name} imports {module}"


def test_every_file_of_channels_has_a_layer() -> None:
    found = {path.stem for path in (SOURCE / "channels").iterdir() if path.stem[:2] != "__"}
    assert found == set(CHANNEL_LAYERS)


@pytest.mark.parametrize("path", files_of("replication"), ids=lambda path: path.stem)
def test_core_imports_no_clock_no_io_and_no_randomness(path: Path) -> None:
    for module, names in imports(path):
        top = module.split(".")[0]
        if top == "adsum":
            continue
        assert top in PURE, f"{path.name} imports {module}"
        if top in FROM_IMPURE:
            assert names <= FROM_IMPURE[top], f"{path.name} takes {names} from {module}"


@pytest.mark.parametrize("name", BUS_CORE)
def test_virtual_links_import_no_clock_no_io_and_no_randomness(name: str) -> None:
    for module, _ in imports(SOURCE / "bus" / f"{name}.py"):
        top = module.split(".")[0]
        assert top == "adsum" or top in PURE | PURE_FOR_BUS, f"{name} imports {module}"


@pytest.mark.parametrize("path", files_of("replication"), ids=lambda path: path.stem)
def test_core_calls_nothing_that_reaches_the_world(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in BANNED_CALLS, f"{path.name} calls {node.func.id}()"


def test_nothing_outside_the_standard_library_is_imported() -> None:
    for path in SOURCE.rglob("*.py"):
        part, *_ = path.relative_to(SOURCE).parts
        if part == "cli":  # the demo brings its own requirements
            continue
        # An integration imports the library of its name, which its extra installs.
        library = part == "integrations" or path.relative_to(SOURCE) in SERVERS
        name = Path(path.relative_to(SOURCE).parts[-1 if part == path.name else 1]).stem
        extra = EXTRAS.get(name, set()) if library else set()
        extra = CLIENTS.get(path.relative_to(SOURCE), extra)
        if path == ACCELERATOR:
            extra = {"msgspec"}
        for module, _ in imports(path):
            top = module.split(".")[0]
            assert top in extra or top == "adsum" or top in sys.stdlib_module_names, (
                f"{path} imports {module}"
            )


def test_tasks_are_created_in_one_module() -> None:
    # An eager task factory runs a task before its creator stores it; `start_task` prevents that.
    # The end of a node may begin eagerly, and users run `testing` in loops of their own.
    allowed = {Path("tasks.py"), Path("node.py")}
    for path in SOURCE.rglob("*.py"):
        relative = path.relative_to(SOURCE)
        if relative not in allowed and relative.parts[0] not in ("testing", "cli"):
            assert ".create_task(" not in path.read_text(), f"{relative} creates a task itself"


def test_engine_is_reached_through_the_driver_alone() -> None:
    # All that is built on a node uses public methods of the driver, which wake the engine.
    for path in SOURCE.rglob("*.py"):
        relative = path.relative_to(SOURCE)
        if relative.parts[0] in ("driver", "replication") or "simulator" in relative.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                assert node.attr != "engine", f"{relative}:{node.lineno} reaches for the engine"
                private = node.attr.startswith("_") and not node.attr.startswith("__")
                holder = node.value
                owner = holder.id if isinstance(holder, ast.Name) else getattr(holder, "attr", "")
                reaches = private and owner in ("node", "_node", "driver", "_driver")
                assert not reaches, f"{relative}:{node.lineno} reaches for {owner}.{node.attr}"


def test_importing_and_constructing_starts_nothing() -> None:
    script = """
import sys, threading, gc, socket
import adsum
node = adsum.Node()
adsum.Presence(node), adsum.PubSub(node)
assert threading.active_count() == 1
assert not [o for o in gc.get_objects() if isinstance(o, socket.socket)]
assert not node.running
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


def test_every_public_name_has_one_home() -> None:
    assert sorted(adsum.__all__) == sorted(set(adsum.__all__))
    public = {name for name in vars(adsum) if not name.startswith("_")}
    modules = {path.stem for path in SOURCE.iterdir()}
    assert public - modules == set(adsum.__all__)


def test_nothing_else_imports_an_integration() -> None:
    for importer, imported in import_graph().items():
        if not importer.startswith("adsum.integrations"):
            assert not {name for name in imported if name.startswith("adsum.integrations")}, (
                importer
            )
