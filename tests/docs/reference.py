"""The public names, and the entries of the reference pages in docs/reference."""

import importlib
import inspect
import re
from operator import attrgetter
from pathlib import Path

from tests.support.markdown_pages import ROOT

PACKAGES = (
    "adsum",
    "adsum.channels",
    "adsum.channels.uvicorn",
    "adsum.integrations.aiohttp",
    "adsum.integrations.broadcaster",
    "adsum.integrations.django",
    "adsum.integrations.httpx",
    "adsum.integrations.litestar",
    "adsum.integrations.socketio",
    "adsum.testing",
)
#: Every public name with its package.
PUBLIC = [
    f"{package}.{name}" for package in PACKAGES for name in importlib.import_module(package).__all__
]
#: The directive of a name, in the language of Sphinx.
ENTRY = re.compile(r"^\.\. auto(?:class|exception|function|data):: ([\w.]+)", re.MULTILINE)
#: The named members of an entry.
MEMBERS = re.compile(r"^\.\. autoclass:: ([\w.]+).*\n   :members: (.+)$", re.MULTILINE)
#: The paragraph below the title, which says where the docstrings are, on one or several lines.
SOURCES = re.compile(
    r"^# .+\n\n`make docs` renders this page from the docstrings in (.+?)\.\n\n", re.DOTALL
)
#: A file or folder in it.
SOURCE = re.compile(r"`(src/[\w/.]+)`")
REFERENCE = sorted((ROOT / "docs/reference").glob("*.md"))
TEXTS = [page.read_text() for page in REFERENCE]
ENTRIES = [name for text in TEXTS for name in ENTRY.findall(text)]


def documented(name: str) -> object:
    """The object of an entry."""
    package = max((each for each in PACKAGES if name.startswith(f"{each}.")), key=len)
    return attrgetter(name.removeprefix(f"{package}."))(importlib.import_module(package))


def file_of(entry: object) -> Path | None:
    """The file that defines a class or a function; None for data."""
    if not inspect.isclass(entry) and not inspect.isfunction(entry):
        return None
    return Path(inspect.getfile(entry))
