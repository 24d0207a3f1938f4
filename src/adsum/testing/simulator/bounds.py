"""Sizes of the structures that peers can make grow in an engine, each with its stated bound."""

from collections.abc import Iterator
from typing import NamedTuple

from adsum.replication import state
from adsum.replication.conflicts import MAX_RIVALS
from adsum.replication.engine import Engine
from adsum.replication.limits import MAX_MEMBERS


class Size(NamedTuple):
    """The size of a structure, and its bound."""

    name: str
    value: int
    most: int


def sizes(engine: Engine, names: int) -> Iterator[Size]:
    """The sizes of an engine's structures.

    Args:
        engine: The engine; its private attributes are read.
        names: The number of names in the cluster, its own included.
    """
    exchange, liveness, links = engine._exchange, engine._liveness, engine._links
    dialler, conflicts = engine._dialler, engine._conflicts
    lives = names + len(engine._departures)
    yield Size("members", len(liveness.members), names - 1)
    yield Size("departures", len(engine._departures), MAX_MEMBERS)
    yield Size("suspects", len(liveness.suspects), len(liveness.members))
    yield Size("slices", len(exchange), lives)
    # Of two links that opened in a race one is closed at once, by the end that may decide it. The
    # other end has both until it learns of that, and for as long as a new dial takes.
    yield Size("links", len(links), 4 * names)
    yield Size(
        "questions", sum(map(len, engine._peers.askers.values())), names * max(1, len(links))
    )
    yield Size("peers to dial", len(dialler._peers), names)
    yield Size("rivals", len(conflicts._rivals), MAX_RIVALS)
    yield Size("refusals", len(conflicts._refused), names)
    yield Size("slices with something to send", len(exchange._dirty), len(exchange))
    for member in liveness.members.values():
        yield Size(f"vouches for {member.replica}", len(member.vouches), names)
    for held in exchange:
        slice = held.slice
        most = 2 * (len(slice.entries) + state.SPARE_HISTORY) + 1
        yield Size(f"history of {slice.replica}", len(slice._log), most)
        yield Size(f"feeds of {slice.replica}", len(held.feeds), len(links))
