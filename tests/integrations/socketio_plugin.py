"""A plugin of pytest: tests of python-socketio use the managers of adsum in place of its own.

The tests construct a manager without arguments of ours, so each gets a node of its own here. They
are coroutines too, which this executes.
"""

import asyncio
import inspect
from typing import Any

import pytest
from socketio import async_pubsub_manager, pubsub_manager

import adsum
from adsum.integrations.socketio import AdsumManager, AsyncAdsumManager

_portals: list[adsum.Portal] = []


def _node() -> adsum.Node:
    return adsum.Node(cluster="upstream", siblings=False)  # some managers are write-only


class PluggedManager(AdsumManager):
    def __init__(self, *arguments: Any, **settings: Any) -> None:
        _portals.append(adsum.Portal(_node()))
        super().__init__(_portals[-1], *arguments, **settings)


class AsyncPluggedManager(AsyncAdsumManager):
    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(_node(), *arguments, **settings)


pubsub_manager.PubSubManager = PluggedManager
async_pubsub_manager.AsyncPubSubManager = AsyncPluggedManager


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    asyncio.run(pyfuncitem.obj())
    return True


def pytest_runtest_teardown() -> None:
    while _portals:
        _portals.pop().close()
