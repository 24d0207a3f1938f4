"""The public names, and the entries of the reference pages in docs/reference."""

import importlib
import re

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
TEXTS = [page.read_text() for page in sorted((ROOT / "docs/reference").glob("*.md"))]
ENTRIES = [name for text in TEXTS for name in ENTRY.findall(text)]
