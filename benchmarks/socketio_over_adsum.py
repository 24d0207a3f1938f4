"""The chat of `socketio_chat` with adsum in place of Redis."""

import adsum
from adsum.integrations.socketio import AsyncAdsumManager
from benchmarks.socketio_chat import chat

node = adsum.Node()
app = node.wrap_app(chat(AsyncAdsumManager(node)))
