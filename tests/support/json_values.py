"""JSON values of any form, as another process may send them, for property tests."""

from typing import Any

from hypothesis import strategies as st

#: Values without parts.
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
)


def json_values(scalars: "st.SearchStrategy[Any]" = SCALARS) -> "st.SearchStrategy[Any]":
    """Values of a few parts: lists and objects of them, down to the scalars."""
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=8,
    )
