"""The template tag `present`: ``{% load adsum %}{% present "room:1" as users %}``."""

from django import template

from adsum.integrations.django.presencemixin import present

register = template.Library()
register.simple_tag(present)
