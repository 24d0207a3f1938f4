"""The Django app of the template tag: ``"adsum.integrations.django"`` in `INSTALLED_APPS`."""

from django.apps import AppConfig


class PresenceConfig(AppConfig):
    """Has a template tag, and no models."""

    name = "adsum.integrations.django"
    label = "adsum"
    verbose_name = "adsum"
