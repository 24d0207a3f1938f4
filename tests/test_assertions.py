"""A failing property shows what was expected and what was found, wherever its `assert` stands."""

import pytest

from adsum.replication.state import Replica
from adsum.replication.view import View

from .replication.strategies import History, check_lists
from .replication.test_laws_delivery import Transfer


def test_failing_check_of_an_imported_module_shows_both_sides() -> None:
    history = History(Replica("a", 1), [("track", 0)])
    with pytest.raises(AssertionError, match=r"dict_keys\(\[\]\) == \{'room'\}"):
        check_lists(View(), history.now.values())


def test_incomplete_transfer_shows_both_sides() -> None:
    transfer = Transfer()
    transfer.act("track", 0)
    with pytest.raises(AssertionError, match=r"\(0, \{\}\) == \(1, \{1: \(1, 1"):
        transfer.check_complete()
