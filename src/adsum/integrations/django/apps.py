"""The Django app: a template tag, a command, and a system check of the channel layers."""

from typing import Any

from django import conf
from django.apps import AppConfig
from django.core import checks

from adsum.arguments import instance
from adsum.errors import ConfigurationError

from .channellayer import ChannelLayer

_BACKEND = f"adsum.integrations.django.{ChannelLayer.__name__}"


class PresenceConfig(AppConfig):
    """Has a template tag, a command and a system check, and no models."""

    name = "adsum.integrations.django"
    label = "adsum"
    verbose_name = "adsum"

    def ready(self) -> None:
        """Register the check."""
        checks.register(check_layers)


def check_layers(app_configs: object, **options: Any) -> list[checks.CheckMessage]:
    """Check the settings of the channel layers: making one starts nothing."""
    found = list[checks.CheckMessage]()
    for alias, layer in getattr(conf.settings, "CHANNEL_LAYERS", {}).items():
        try:
            if layer.get("BACKEND") == _BACKEND:
                config = layer.get("CONFIG", {})
                ChannelLayer(**instance("CONFIG", config, dict, "a dict of settings"))
        except ConfigurationError as error:
            found.append(checks.Error(f"CHANNEL_LAYERS[{alias!r}]: {error}", id="adsum.E001"))
    return found
