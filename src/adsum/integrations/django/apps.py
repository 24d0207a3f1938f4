"""The Django app: a template tag, a command, and system checks."""

from typing import Any

from django import conf
from django.apps import AppConfig, apps
from django.core import checks

from adsum.arguments import instance
from adsum.errors import ConfigurationError
from adsum.quoting import quoted

from .channellayer import ChannelLayer

_BACKEND = f"adsum.integrations.django.{ChannelLayer.__name__}"


class PresenceConfig(AppConfig):
    """Has a template tag, a command and system checks, and no models."""

    name = "adsum.integrations.django"
    label = "adsum"
    verbose_name = "adsum"

    def ready(self) -> None:
        """Register the checks."""
        checks.register(check_layers)
        checks.register(check_order)


def check_layers(app_configs: object, **options: Any) -> list[checks.CheckMessage]:
    """Check the settings of the channel layers: making one starts nothing."""
    layers = getattr(conf.settings, "CHANNEL_LAYERS", {})
    if not isinstance(layers, dict):
        message = f"CHANNEL_LAYERS={quoted(layers)}: must be a dict of layers"
        return [checks.Error(message, id="adsum.E001")]
    found = list[checks.CheckMessage]()
    for alias, layer in layers.items():
        try:
            _check_layer(layer)
        except ConfigurationError as error:
            found.append(checks.Error(f"CHANNEL_LAYERS[{alias!r}]: {error}", id="adsum.E001"))
    return found


def _check_layer(layer: object) -> None:
    """Check the settings of one layer, if it is that of adsum.

    Raises:
        ConfigurationError: They are wrong.
    """
    settings = instance("layer", layer, dict, "a dict with BACKEND and CONFIG")
    if settings.get("BACKEND") == _BACKEND:
        config = instance("CONFIG", settings.get("CONFIG", {}), dict, "a dict of settings")
        for name in config:
            instance("a key of CONFIG", name, str, "the name of a setting")
        ChannelLayer(**config)


def check_order(app_configs: object, **options: Any) -> list[checks.CheckMessage]:
    """Check that this app is above that of Channels, whose `runworker` it replaces."""
    names = [app.name for app in apps.get_app_configs()]
    if "channels" not in names[: names.index(PresenceConfig.name)]:
        return []
    return [
        checks.Warning(
            f"INSTALLED_APPS: put {PresenceConfig.name!r} above 'channels'; otherwise SIGTERM ends "
            "`manage.py runworker` as a crash",
            id="adsum.W001",
        )
    ]
