"""A `Presence` as phoenix.js has it, which fails if a ref joins twice or leaves while absent.

It does as phoenix.js does: joins before leaves, metas matched by their ref, diffs kept until the
first state, and frames of an earlier channel ignored.
"""

from typing import Any


class Presence:
    """A client's idea of who is there.

    Args:
        join_ref: Of the channel that is looked at.
    """

    def __init__(self, join_ref: str) -> None:
        self.state: dict[str, Any] = {}
        #: The refs that were ever announced, and those that were withdrawn.
        self.joined: set[str] = set()
        self.left: set[str] = set()
        self.ready = False
        self._join_ref = join_ref
        self._waiting: list[dict[str, Any]] = []

    def refs(self) -> set[str]:
        """The refs that are present."""
        return {meta["phx_ref"] for entry in self.state.values() for meta in entry["metas"]}

    def take(self, frame: list[Any]) -> None:
        """Take in a frame; others than those about presences are passed over.

        Raises:
            AssertionError: A ref is announced that was before, or withdrawn that was not there.
        """
        join_ref, _, _, event, payload = frame
        if join_ref not in (None, self._join_ref):
            return  # it is for a channel that was joined before
        if event == "presence_state":
            self._take_state(payload)
        elif event == "presence_diff":
            if self.ready:
                self._take_diff(payload)
            else:
                self._waiting.append(payload)

    def _take_state(self, state: dict[str, Any]) -> None:
        refs = {meta["phx_ref"] for entry in state.values() for meta in entry["metas"]}
        gone = self.refs() - refs
        leaves = _only(self.state, gone)
        joins = _only(state, refs - self.refs())
        self.ready = True
        self._take_diff({"joins": joins, "leaves": leaves})
        self.state = {key: state[key] for key in sorted(state)}
        waiting, self._waiting = self._waiting, []
        for diff in waiting:
            self._take_diff(diff)

    def _take_diff(self, diff: dict[str, Any]) -> None:
        for key, entry in diff["joins"].items():
            for meta in entry["metas"]:
                ref = meta["phx_ref"]
                assert ref not in self.joined, f"{ref} of {key!r} is announced twice"
                self.joined.add(ref)
                metas = self.state.get(key, {}).get("metas", [])
                place = _place_of(metas, meta.get("phx_ref_prev"))
                metas = [*metas[:place], meta, *metas[place:]]
                self.state[key] = {**entry, "metas": metas}
        for key, entry in diff["leaves"].items():
            for meta in entry["metas"]:
                ref = meta["phx_ref"]
                assert ref in self.refs(), f"{ref} of {key!r} leaves, and is not there"
                self.left.add(ref)
                rest = [m for m in self.state[key]["metas"] if m["phx_ref"] != ref]
                if rest:
                    self.state[key] = {**self.state[key], "metas": rest}
                else:
                    del self.state[key]
        self.state = {key: self.state[key] for key in sorted(self.state)}


def _place_of(metas: list[dict[str, Any]], ref: str | None) -> int:
    """Where the successor of a ref goes: to its place, so that an update moves nothing."""
    refs = [meta["phx_ref"] for meta in metas]
    return refs.index(ref) if ref in refs else len(refs)


def _only(state: dict[str, Any], refs: set[str]) -> dict[str, Any]:
    """The entries of some refs alone."""
    found = {}
    for key, entry in state.items():
        metas = [meta for meta in entry["metas"] if meta["phx_ref"] in refs]
        if metas:
            found[key] = {**entry, "metas": metas}
    return found
