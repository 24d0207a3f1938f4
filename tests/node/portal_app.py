"""A WSGI application with a portal, for gunicorn: tracks and lists keys."""

import os

from flask import Flask

import adsum

portal = adsum.Portal()
portal.count("room")  # in the master, if it preloads the application
app = Flask(__name__)


@app.post("/track/<key>")
def track(key: str) -> str:
    portal.track("room", key)
    return str(os.getpid())


@app.get("/list")
def keys() -> dict[str, object]:
    return {"pid": os.getpid(), "room": portal.list("room")}
