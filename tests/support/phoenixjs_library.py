"""The library phoenix.js, unmodified, as `adsum demo` installs it."""

from pathlib import Path

import pytest

from adsum.cli import phoenixjs


def phoenix_directory() -> Path:
    """The directory with phoenix.mjs; skips the test where it cannot be had."""
    try:
        phoenixjs.node_path()
        return phoenixjs.install()
    except phoenixjs.InstallError as error:
        pytest.skip(f"phoenix.js is missing: {error}")
