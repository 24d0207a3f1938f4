"""Settings of Sphinx for the documentation site, which `make docs` builds from the pages.

The root of the source is the repository, so the links of the pages lead to the same files on the
site and on the code host. The navigation comes from the pages that list others: `docs/README.md`
for the four kinds of pages, the README of a folder for the pages in it.
"""

import importlib
import posixpath
import re
import shutil
from itertools import starmap
from pathlib import Path

from docutils.nodes import Element  # type: ignore[import-untyped]  # it has no types
from pygments.lexers.special import TextLexer  # type: ignore[import-untyped]  # nor has this
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

ROOT = Path(__file__).resolve().parents[1]
#: Packages whose `__all__` is the public API.
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

project = "adsum"
html_title = "adsum"
root_doc = "README"
include_patterns = ["*.md", "docs/**.md", "benchmarks/results/*.md", "examples/*.md"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
nitpicky = True
# Names that need no entry: arguments in docstrings, types in signatures that are not public.
nitpick_ignore_regex = [
    ("py:obj", ".*"),
    ("py:class", r"(adsum|asyncio|collections|contextlib|logging|os|ssl)\..*|(dict|tuple)\[str"),
    ("py:(class|exc)", r"(aiohttp|broadcaster|channels|httpx|socketio)\..*|ClientRequest"),
    ("py:(class|exc)", "ChannelFull|Connection|MessageTooLarge|Trace"),
]
# Pages may skip a level of headings.
suppress_warnings = ["myst.header"]

# Headings have the anchors that the code host gives them.
myst_heading_anchors = 4

# `Name` in a docstring links to that name if it is public.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 72
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_use_index = False
html_domain_indices = False
html_show_sphinx = False
html_show_copyright = False

#: Page that lists the pages of each kind.
INDEX = "docs/README.md"
#: Pages that list the pages of their folder.
FOLDERS = ("docs/decisions/README.md",)
#: Items of a list of pages, each with the path of its page.
LISTED = re.compile(r"^- \[[^\]]+\]\(([\w./-]+\.md)\)", re.MULTILINE)


def navigation(page: str) -> dict[str, list[str]]:
    """The pages that a page lists, by the heading above them."""
    _, *parts = re.split(r"^#+ ", (ROOT / page).read_text(), flags=re.MULTILINE)
    folder = posixpath.dirname(page)
    found = {
        part.partition("\n")[0]: [
            posixpath.normpath(posixpath.join(folder, path)) for path in LISTED.findall(part)
        ]
        for part in parts
    }
    return {heading: pages for heading, pages in found.items() if pages}


def toctree(heading: str, pages: list[str]) -> str:
    """A part of the navigation, not shown on the page that has it."""
    caption = f":caption: {heading}\n" if heading else ""
    entries = "".join(f"/{page.removesuffix('.md')}\n" for page in pages)
    return f"\n```{{toctree}}\n:hidden:\n{caption}\n{entries}```\n"


def add_navigation(app: Sphinx, name: str, text: list[str]) -> None:
    """Append the navigation: to the front page that of the site, to a page of a folder its own."""
    if name == root_doc:
        parts = {"": [INDEX]} | navigation(INDEX)
    elif f"{name}.md" in FOLDERS:
        parts = {"": [page for pages in navigation(f"{name}.md").values() for page in pages]}
    else:
        return
    text[0] += "".join(starmap(toctree, parts.items()))


def public_names() -> dict[str, str]:
    """Each public name by its bare name, and by that of the module that defines it."""
    found: dict[str, str] = {}
    for package in map(importlib.import_module, PACKAGES):
        for name in package.__all__:
            public = f"{package.__name__}.{name}"
            found[name] = found[f"{getattr(package, name).__module__}.{name}"] = public
    return found


PUBLIC = public_names()


def resolve_public_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: Element
) -> Element | None:
    """Link a name of another package or module to the entry of the public name."""
    first, dot, rest = node["reftarget"].partition(".")
    public = PUBLIC.get(node["reftarget"]) or f"{PUBLIC.get(first, first)}{dot}{rest}"
    found = env.domains.python_domain.objects.get(public)
    if found is None:
        return None
    return make_refnode(app.builder, node["refdoc"], found.docname, found.node_id, content)


def copy_front_page(app: Sphinx, error: Exception | None) -> None:
    """Let the address of the site itself lead to the front page."""
    if error is None and app.builder.name == "html":
        shutil.copyfile(app.outdir / f"{root_doc}.html", app.outdir / "index.html")


def setup(app: Sphinx) -> None:
    """Connect the functions above; called by Sphinx."""
    app.add_lexer("haproxy", TextLexer)
    app.connect("source-read", add_navigation)
    app.connect("missing-reference", resolve_public_name)
    app.connect("build-finished", copy_front_page)
