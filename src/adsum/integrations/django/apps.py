"""The Django app: a template tag, a command, and system checks."""

from typing import Any

from django import conf
from django.apps import AppConfig, apps
from django.core import checks

from adsum.arguments import instance
from adsum.errors import ConfigurationError

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
    found = list[checks.CheckMessage]()
    for alias, layer in getattr(conf.settings, "CHANNEL_LAYERS", {}).items():
        try:
            if layer.get("BACKEND") == _BACKEND:
                config = layer.get("CONFIG", {})
                ChannelLayer(**instance("CONFIG", config, dict, "a dict of settings"))
        except ConfigurationError as error:
            found.append(checks.Error(f"CHANNEL_LAYERS[{alias!r}]: {error}", id="adsum.E001"))
    return found


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
