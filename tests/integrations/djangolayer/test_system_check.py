"""`manage.py check` names wrong settings of a channel layer before any server uses it."""

from typing import Any

import django
import pytest
from django.conf import settings
from django.test import override_settings

from adsum.integrations.django.apps import check_layers, check_order

if not settings.configured:
    settings.configure()
django.setup()

APP = "adsum.integrations.django"
BACKEND = f"{APP}.ChannelLayer"


@pytest.mark.parametrize(
    ("layer", "messages"),
    [
        ({"BACKEND": BACKEND, "CONFIG": {"cluster": "shop"}}, []),
        (
            {"BACKEND": BACKEND, "CONFIG": None},
            ["CHANNEL_LAYERS['default']: CONFIG=None: must be a dict of settings"],
        ),
        (
            {"BACKEND": BACKEND, "CONFIG": {5: 3}},
            ["CHANNEL_LAYERS['default']: a key of CONFIG=5: must be the name of a setting"],
        ),
        (None, ["CHANNEL_LAYERS['default']: layer=None: must be a dict with BACKEND and CONFIG"]),
        ({"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"linger": -1}}, []),
        (
            {"BACKEND": BACKEND, "CONFIG": {"cluster": "shop", "linger": -1}},
            ["CHANNEL_LAYERS['default']: linger=-1: must be between 0 s and 3600 s"],
        ),
    ],
)
def test_wrong_settings_of_a_layer_are_found(layer: Any, messages: list[str]) -> None:
    with override_settings(CHANNEL_LAYERS={"default": layer}):
        assert [found.msg for found in check_layers(None)] == messages


@pytest.mark.parametrize("layers", [None, [], "default"])
def test_layers_that_are_no_dict_are_found(layers: Any) -> None:
    with override_settings(CHANNEL_LAYERS=layers):
        (found,) = check_layers(None)
    assert found.msg == f"CHANNEL_LAYERS={layers!r}: must be a dict of layers"


@pytest.mark.parametrize(
    ("installed", "ids"),
    [
        ([APP, "channels"], []),
        ([APP], []),
        (["channels", f"{APP}.apps.PresenceConfig"], ["adsum.W001"]),
    ],
)
def test_app_below_channels_is_warned_of(installed: list[str], ids: list[str]) -> None:
    with override_settings(INSTALLED_APPS=installed):
        assert [warning.id for warning in check_order(None)] == ids
