"""The page about deployment lists every logger of the source, and no other."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: A logger of the source; those in examples of docstrings are indented.
_LOGGER = re.compile(r'^(?!\s*>>>).*getLogger\("(adsum\.[a-z.]+)"\)', re.MULTILINE)


def test_every_logger_is_on_the_page() -> None:
    sources = [path.read_text() for path in (ROOT / "src" / "adsum").rglob("*.py")]
    used = {name for text in sources for name in _LOGGER.findall(text)}
    logs = (ROOT / "docs" / "deployment.md").read_text().partition("\n## Logs\n")[2]
    listed = set(re.findall(r"^\| `(adsum\.[a-z.]+)` \|", logs, re.MULTILINE))
    assert listed == used


def test_each_integration_has_the_logger_of_its_name() -> None:
    for path in (ROOT / "src" / "adsum" / "integrations").rglob("*.py"):
        name = path.relative_to(ROOT / "src").parts[2].removesuffix(".py")
        for logger in _LOGGER.findall(path.read_text()):
            assert logger == f"adsum.integrations.{name}"
