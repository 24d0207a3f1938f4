"""An integration without its library names the extra."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("library", "package"),
    [
        ("aiohttp", "aiohttp"),
        ("broadcaster", "broadcaster"),
        ("httpx", "httpx"),
        ("litestar", "litestar"),
        ("socketio", "python-socketio"),
    ],
)
def test_missing_library_names_the_extra(library: str, package: str) -> None:
    script = f"""
import sys
sys.modules[{library!r}] = None
import adsum, adsum.integrations
try:
    import adsum.integrations.{library}
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == (
        f'adsum.integrations.{library} needs {package}: pip install "adsum[{library}]"\n'
    )
