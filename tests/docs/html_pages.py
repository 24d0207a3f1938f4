"""The documentation site as `make docs` builds it, and the references in its pages."""

import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from tests.support.markdown_pages import ROOT

#: The arguments of Sphinx in the Makefile.
RECIPE = re.compile(r"^\t\$\(BIN\)/sphinx-build (.+)$", re.MULTILINE)


def build(site: Path) -> subprocess.CompletedProcess[str]:
    """Run the command of `make docs`, with a folder of its own for the output."""
    found = RECIPE.search((ROOT / "Makefile").read_text())
    assert found is not None
    places = {"site": str(site), ".doctrees": f"{site}.doctrees"}
    arguments = [places.get(one, one) for one in found[1].split()]
    return subprocess.run(
        [sys.executable, "-m", "sphinx", *arguments],
        cwd=ROOT,
        timeout=100,
        capture_output=True,
        text=True,
        check=False,
    )


@dataclass
class References:
    """References of one page.

    Attributes:
        anchors: The ids of its elements.
        links: The targets of its links.
        loaded: The addresses of files that a browser loads to show it.
    """

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found = References()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is None:
                continue
            if name == "id":
                self.found.anchors.add(value)
            elif name == "href" and tag == "a":
                self.found.links.append(value)
            elif name in ("href", "src", "srcset", "data", "poster"):
                self.found.loaded.append(value)


def references(page: Path) -> References:
    """The references in a page of the site."""
    parser = _Parser()
    parser.feed(page.read_text())
    return parser.found
