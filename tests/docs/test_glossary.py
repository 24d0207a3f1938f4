"""docs/glossary.md is in order, and each term has a source, a page and a module that exists."""

import importlib.util
import re

import pytest

from tests.support.markdown_pages import ROOT

_, *TERMS = re.split(r"^### ", (ROOT / "docs/glossary.md").read_text(), flags=re.MULTILINE)
#: The paragraph that ends a term: source, link to a page, module.
REFERENCE = re.compile(r".+ · \[[\w ]+\]\([\w./#-]+\) · `[\w.]+`")
MODULE = re.compile(r"`((?:adsum|tests)\.[\w.]+)`")


def term(text: str) -> str:
    return text.partition("\n")[0]


def test_terms_are_in_alphabetical_order() -> None:
    names = [term(text) for text in TERMS]
    assert names == sorted(set(names))


@pytest.mark.parametrize("text", TERMS, ids=term)
def test_term_has_a_source_a_page_and_modules_that_exist(text: str) -> None:
    _, *definition, reference = text.strip().split("\n\n")
    assert len(definition) == 1
    assert REFERENCE.fullmatch(" ".join(reference.split())), reference
    for module in MODULE.findall(text):
        assert importlib.util.find_spec(module) is not None, module
