"""A pytest plugin that runs the layer tests of channels_redis with the layer of adsum.

It takes the place of the modules that these tests import. The layer itself is unchanged, but for
the differences that `Shim` lists.
"""

import logging
import secrets
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from channels.exceptions import ChannelFull

from adsum.errors import UsageError
from adsum.integrations.django import ChannelLayer

#: Tests that are not run, with the reasons.
LEFT_OUT = {
    "test_default_group_key_format": "the name of a key in Redis",
    "test_custom_group_key_format": "the name of a key in Redis",
    "test_random_reset__client_prefix": "reads the attribute client_prefix of its layer",
    "test_receive_buffer_respects_capacity": "reads the attribute receive_buffer of its layer",
    "test_loop_instance_channel_layer_reference": "reads the private layers of event loops",
    "test_multi_event_loop_garbage_collection": "reads the private layers of event loops",
    "test_auto_reconnect": "closes the connections to Redis",
    "test_message_expiry__group_send__one_channel_expires_message": (
        "expects a message at the moment of its expiry; its authors expect it to fail too"
    ),
}
_KEY = "not a dict"
_cluster = ""
_layers: list[ChannelLayer] = []


class Shim(ChannelLayer):
    """The layer, with the constructor of the layers of channels_redis, and these differences.

    - There are no pools to close.
    - `receive` on a channel of another process fails by an assertion.
    - The layer over pub/sub passes messages on that are no dicts.
    """

    def __init__(self, hosts: object = None, **settings: Any) -> None:
        super().__init__(cluster=_cluster, **settings)
        _layers.append(self)

    async def close_pools(self) -> None:
        """Do nothing."""

    async def send(self, channel: str, message: Any) -> None:
        await super().send(channel, message if isinstance(message, dict) else {_KEY: message})

    async def receive(self, channel: str) -> Any:
        try:
            message = await super().receive(channel)
        except UsageError as error:
            raise AssertionError(str(error)) from error
        return message.get(_KEY, message)


def _module(name: str, **contents: object) -> None:
    module = sys.modules[name] = ModuleType(name)
    vars(module).update(contents)


async def _close_redis(connection: object) -> None:
    raise AssertionError("there is no connection to Redis")


_module("channels_redis")
_module("channels_redis.core", ChannelFull=ChannelFull, RedisChannelLayer=Shim)
_module("channels_redis.pubsub", RedisPubSubChannelLayer=Shim)
_module("channels_redis.utils", _close_redis=_close_redis)


class _AsInfo(logging.Filter):
    """Lowers lines to the level that channels_redis uses for channels over capacity."""

    def filter(self, record: logging.LogRecord) -> bool:
        if "over capacity" in record.msg:
            record.levelno, record.levelname = logging.INFO, "INFO"
        return True


logging.getLogger("adsum.integrations.django").addFilter(_AsInfo())


@pytest.fixture(autouse=True)
def _own_cluster() -> Iterator[None]:
    """Each test has a cluster of its own, whose nodes end with it."""
    global _cluster
    _cluster = f"test-{secrets.token_hex(8)}"
    yield
    while _layers:
        _layers.pop().portal.close()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of `LEFT_OUT`; those that fail with Redis are expected to pass here."""
    left_out = [item for item in items if getattr(item, "originalname", item.name) in LEFT_OUT]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
    for item in items:
        item.own_markers = [mark for mark in item.own_markers if mark.name != "xfail"]
