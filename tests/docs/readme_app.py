"""The application of the README's browser section, in files as the section says."""

from pathlib import Path

from tests.support.markdown_pages import ROOT, blocks
from tests.support.phoenixjs_library import phoenix_directory

_BLOCKS = list(blocks(ROOT / "README.md"))


def write_application(directory: Path) -> None:
    """Write `app.py` and `page.html`, and put phoenix.js where npm puts it.

    The test is skipped where phoenix.js cannot be had.
    """
    first, second = (block.text for block in _BLOCKS if block.info == "python")
    (directory / "app.py").write_text(first[: first.index("@app.websocket")] + second)
    (page,) = (block.text for block in _BLOCKS if block.info == "html")
    (directory / "page.html").write_text(page)
    modules = next(it for it in phoenix_directory().parents if it.name == "node_modules")
    (directory / "node_modules").symlink_to(modules)


def command() -> list[str]:
    """The command that serves it."""
    (shown,) = (block.text for block in _BLOCKS if "npm install phoenix\nuvicorn" in block.text)
    return shown.splitlines()[-1].split()
