"""A worker of a Flask-SocketIO application whose clients command it, under gunicorn."""

import os
from typing import Any

from flask import Flask, request
from flask_socketio import SocketIO, call, close_room, disconnect, emit, join_room, leave_room

import adsum
from adsum.integrations.socketio import AdsumManager

app = Flask(__name__)
site = SocketIO(
    app,
    async_mode="threading",
    client_manager=AdsumManager(adsum.Portal()),
    max_http_buffer_size=4 * 1024 * 1024,
)


@site.on("worker")
def worker() -> int:
    """The process that serves this client."""
    return os.getpid()


@site.on("whoami")
def whoami() -> str:
    return str(request.sid)  # type: ignore[attr-defined]  # Flask-SocketIO adds it


@site.on("enter")
def enter(room: str, other: str | None = None) -> None:
    join_room(room, sid=other)


@site.on("leave")
def leave(room: str, other: str | None = None) -> None:
    leave_room(room, sid=other)


@site.on("close")
def close(room: str) -> None:
    close_room(room)


@site.on("kick")
def kick(other: str) -> None:
    disconnect(sid=other)


@site.on("shout")
def shout(room: str | None, value: Any) -> None:
    """Send to all clients of a room, or to all of them."""
    emit("said", value, to=room, broadcast=room is None)


@site.on("count")
def count(room: str, end: int) -> None:
    for number in range(end):
        emit("counted", number, to=room)


@site.on("ask")
def ask(other: str, value: Any) -> Any:
    """Ask a client, and return its answer."""
    return call("question", value, to=other, timeout=20)
