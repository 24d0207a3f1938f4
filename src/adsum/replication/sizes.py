"""The size of a structure that peers can make grow, with its bound."""

from typing import NamedTuple


class Size(NamedTuple):
    """The size of one structure, and its bound.

    Attributes:
        name: The structure.
        value: Its present size.
        bound: The size that it never exceeds.
    """

    name: str
    value: int
    bound: int
