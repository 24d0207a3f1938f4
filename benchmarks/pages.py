"""Tables of figures in pages of the documentation, between two lines that mark their place."""

from collections.abc import Iterable


def table(headings: list[str], rows: Iterable[list[str]]) -> str:
    """A table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def replaced(page: str, begin: str, end: str, tables: str) -> str:
    """The page with the tables between the two lines that mark their place.

    Raises:
        ValueError: The page does not have each of the two lines once, in their order.
    """
    before, first, rest = page.partition(f"{begin}\n")
    _, last, after = rest.partition(f"{end}\n")
    if not first or not last or begin in rest or end in before + after:
        raise ValueError(f"the page must have the lines {begin!r} and {end!r} once, in this order")
    return f"{before}{first}\n{tables}\n{last}{after}"
