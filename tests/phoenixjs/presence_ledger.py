"""What a Presence of phoenix.js announced, kept as a ledger that has to balance.

A *real change* is a difference between two states that the client was shown one after the other:
a ref in the new one that was not in the old one has joined, one that is no more has left. States
are those after each `presence_state` and each `presence_diff`. So a ref that came and went between
two diffs, which the server may merge, was never shown and is not announced; an update is the join
of one ref and the leave of another; and what happened while a client was disconnected is announced
when it is back, as the difference to what it knew.
"""

from collections import Counter
from typing import Any


class Ledger:
    """The announcements to one Presence, from its first on.

    Attributes:
        known: The refs that are announced as present, by key.
        joins: How often each ref was announced as joined.
        gone: The keys that left altogether, in order.
    """

    def __init__(self) -> None:
        self.known: dict[str, set[str]] = {}
        self.joins: Counter[str] = Counter()
        self.gone: list[str] = []

    def take(self, log: list[Any]) -> None:
        """Enter announcements.

        Raises:
            AssertionError: One is of no real change, or a real change was not announced.
        """
        for entry in log:
            match entry:
                case "join", key, refs:
                    self._join(key, refs)
                case "leave", key, refs:
                    self._leave(key, refs)
                case "sync", listed:
                    known = {key: sorted(refs) for key, refs in self.known.items()}
                    shown = {key: sorted(refs) for key, refs in listed.items()}
                    assert known == shown, f"announced: {known}; it is not what is shown: {shown}"

    def came_back(self) -> list[str]:
        """The refs that have joined more than once, leaving in between."""
        return [ref for ref, count in self.joins.items() if count > 1]

    def _join(self, key: str, refs: list[str]) -> None:
        known = self.known.setdefault(key, set())
        assert refs, f"{key} was announced as joined without a ref"
        for ref in refs:
            assert ref not in known, f"{key} {ref} was announced as joined, and was there"
            known.add(ref)
            self.joins[ref] += 1

    def _leave(self, key: str, refs: list[str]) -> None:
        known = self.known.get(key, set())
        assert refs, f"{key} was announced as left without a ref"
        for ref in refs:
            assert ref in known, f"{key} {ref} was announced as left, and was not there"
            known.remove(ref)
        if not known:
            del self.known[key]
            self.gone.append(key)
