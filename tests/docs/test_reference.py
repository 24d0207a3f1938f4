"""The reference pages have an entry for each public name, and for no other."""

import importlib
from operator import attrgetter

import pytest

from tests.docs.reference import ENTRIES, MEMBERS, PUBLIC, TEXTS


def test_every_public_name_has_one_entry_and_no_other_name_has() -> None:
    assert sorted(ENTRIES) == sorted(PUBLIC)


@pytest.mark.parametrize(("name", "members"), [each for t in TEXTS for each in MEMBERS.findall(t)])
def test_named_member_exists_and_has_a_docstring(name: str, members: str) -> None:
    package, _, attribute = name.rpartition(".")
    public = attrgetter(attribute)(importlib.import_module(package))
    for member in members.split(", "):
        assert getattr(public, member).__doc__, f"{name}.{member}"
