"""The browser that pages are tested in: Debian's Chromium, headless and quiet."""

import os
import shutil
from contextlib import suppress

from adsum.cli import phoenixjs

#: Where it is; None where there is none.
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
#: It runs as any user, and asks nothing of anybody outside.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Playwright brings a Node.js that needs libatomic; that of the extra `demo` needs nothing.
with suppress(phoenixjs.InstallError):
    os.environ.setdefault("PLAYWRIGHT_NODEJS_PATH", str(phoenixjs.node_path()))
