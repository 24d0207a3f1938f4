"""The users in a room, and messages to them, in Flask: the same in every worker.

    pip install flask gunicorn
    gunicorn flask_app:app --workers 2 --threads 20 --preload --graceful-timeout 5

The commands of a client, each stream in a terminal of its own:

    curl -N 'http://127.0.0.1:8000/rooms/1/users/stream?user=ann'    # present until Ctrl-C
    curl -N 'http://127.0.0.1:8000/rooms/1/messages/stream'
    curl 'http://127.0.0.1:8000/rooms/1/users'                       # {"users": ["ann"], ...}
    curl -d text=tea 'http://127.0.0.1:8000/rooms/1/messages'
"""

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

from flask import Flask, Response, abort, request

import adsum

portal = adsum.Portal()  # starts at its first use, in each worker
app = Flask(__name__)
#: Seconds without an event after which a stream sends a comment. The second one that is sent to a
#: client that has left fails, which ends the stream.
PULSE = 1.0


@app.get("/rooms/<string(maxlength=100):room>/users")
def users(room: str) -> dict[str, Any]:
    """The users of a room, whichever workers they are connected to."""
    return {"users": list(portal.list(f"room:{room}")), "worker": os.getpid()}


@app.post("/rooms/<string(maxlength=100):room>/messages")
def say(room: str) -> dict[str, int]:
    """Send a message to all streams of a room, on every worker."""
    portal.publish(f"room:{room}", {"text": request.form["text"][:500]})
    return {"users": portal.count(f"room:{room}")}


@app.get("/rooms/<string(maxlength=100):room>/users/stream")
def stream_users(room: str) -> Response:
    """Be in a room while the response lasts, and receive its users at each change."""
    user, topic = request.args["user"], f"room:{room}"
    if not 0 < len(user) <= 100:
        abort(400, "user: must have 1 to 100 characters")

    def events() -> Iterator[str]:
        with portal.track(topic, user), portal.watch(topic, timeout=PULSE) as diffs:
            yield from stream(diffs, lambda diff: list(portal.list(topic)))

    return Response(events(), mimetype="text/event-stream")


@app.get("/rooms/<string(maxlength=100):room>/messages/stream")
def stream_messages(room: str) -> Response:
    """Receive the messages to a room."""

    def events() -> Iterator[str]:
        with portal.subscribe(f"room:{room}", timeout=PULSE) as messages:
            yield from stream(messages, lambda message: message.payload)

    return Response(events(), mimetype="text/event-stream")


def stream(items: Iterator[Any], value: Callable[[Any], object]) -> Iterator[str]:
    """Send an event for each item, and comments in between; ends when the node does."""
    while True:
        try:
            item = next(items)
        except TimeoutError:
            yield ": still here\n\n"
        except StopIteration:
            return
        else:
            yield f"data: {json.dumps(value(item))}\n\n"
