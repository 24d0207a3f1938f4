"""The browser that pages are tested in: Debian's Chromium, headless and quiet."""

import shutil

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
