"""The handler of the quickstart's section about reloads, beside the one without a linger."""

from typing import Any

import pytest

from tests.support.markdown_pages import ROOT, blocks

pytest.importorskip("fastapi")
testclient = pytest.importorskip("starlette.testclient")


def application() -> Any:
    """The FastAPI application of the page, with both of its handlers, as one process alone."""
    texts = [it.text for it in blocks(ROOT / "docs/quickstart.md") if it.info == "python"]
    program: dict[str, Any] = {}
    for path in ('"/rooms/{room}/{user}"', '"/lounges/{room}/{user}"'):
        (text,) = (text for text in texts if path in text)
        exec(text.replace("adsum.Node()", "adsum.Node(siblings=False)"), program)
    return program["app"]


def test_lost_connection_keeps_only_the_user_with_a_linger() -> None:
    with testclient.TestClient(application()) as client:
        for path in ("/rooms/1/ann", "/lounges/1/bob"):
            with client.websocket_connect(path) as connection:
                assert path[-3:] in client.get("/rooms/1").json()
                connection.close(1001)  # as a browser that reloads the page
        assert list(client.get("/rooms/1").json()) == ["bob"]
