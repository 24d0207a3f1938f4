"""The list of mutants keeps up with the core: what each one breaks is there, once."""

import pytest

from .mutants import CORE, MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_source_line_of_each_mutant_exists(mutant: Mutant) -> None:
    assert (ROOT / CORE / mutant.file).read_text().count(mutant.text) == 1
    assert mutant.text != mutant.instead
