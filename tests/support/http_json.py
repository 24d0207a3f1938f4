"""Requests to a server that may be down: the JSON of the answer, or None."""

import contextlib
import json
import urllib.request
from typing import Any


def fetch_json(url: str, body: bytes | None = None) -> Any:
    """The JSON that a server answers with; None if it does not answer."""
    with contextlib.suppress(OSError):
        request = urllib.request.Request(url, body)
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)
    return None
