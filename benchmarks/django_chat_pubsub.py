"""The chat in the other layer of channels_redis: `uvicorn benchmarks.django_chat_pubsub:app`."""

import os

from benchmarks.contenders import LAYER

os.environ[LAYER] = "channels_redis.pubsub.RedisPubSubChannelLayer"

from benchmarks.django_chat import app  # reads the variable

__all__ = ["app"]
