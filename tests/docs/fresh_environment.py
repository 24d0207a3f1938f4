"""An environment in which the programs of the documentation disturb nobody."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.markdown_pages import ROOT


@contextmanager
def fresh_environment() -> Iterator[dict[str, str]]:
    """A cluster of its own, and a directory of its own for its sockets, with a short path."""
    inherited = {name: value for name, value in os.environ.items() if "ADSUM" not in name}
    with tempfile.TemporaryDirectory(prefix="adsum") as directory:
        yield {
            **inherited,
            "ADSUM_CLUSTER": f"docs-{secrets.token_hex(4)}",
            "ADSUM_RUNTIME_DIR": directory,
            "APP_SECRET": secrets.token_urlsafe(),
            "SECRET_KEY": secrets.token_urlsafe(),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), inherited.get("PYTHONPATH")])),
        }
