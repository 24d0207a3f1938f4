"""Presences as the JSON texts that clients read: who is on a topic, and what changed. Pure.

Metas are kept as text, so a state or a diff is joined from texts; nothing is parsed or encoded.
"""

from adsum.replication.entry import KEY, VERSION, Entry, Identity, Transition, identity
from adsum.replication.jsontext import dump, quote
from adsum.replication.view import meta_text
from adsum.watching import Entries

_EMPTY_DIFF = '{"joins":{},"leaves":{}}'


def state_text(entries: list[Entry], extras: Entries) -> str:
    """Everybody on a topic: ``{"ann":{"metas":[...]}}``.

    Args:
        entries: Who is there.
        extras: What to add beside ``metas``, by key.
    """
    return _by_key([(entry, meta_text(entry)) for entry in entries], extras)


def diff_text(transitions: list[Transition], extras: Entries) -> str | None:
    """What changed: ``{"joins":{...},"leaves":{...}}``; None if nothing did.

    An update is the new meta among the joins, naming the old one, which is among the leaves.
    """
    joins, leaves = list[tuple[Entry, str]](), list[tuple[Entry, str]]()
    for old, new in transitions:
        if old is not None:
            leaves.append((old, meta_text(old)))
        if new is not None:
            joins.append((new, meta_text(new) if old is None else meta_text(new, old[VERSION])))
    text = f'{{"joins":{_by_key(joins, extras)},"leaves":{_by_key(leaves, extras)}}}'
    return None if text == _EMPTY_DIFF else text


def _by_key(metas: list[tuple[Entry, str]], extras: Entries) -> str:
    """Metas by key, in the order in which every node lists them."""
    by_key: dict[str, list[tuple[Identity, str]]] = {}
    for entry, text in metas:
        by_key.setdefault(entry[KEY], []).append((identity(entry), text))
    return "{" + ",".join(_entry(key, by_key[key], extras) for key in sorted(by_key)) + "}"


def _entry(key: str, metas: list[tuple[Identity, str]], extras: Entries) -> str:
    texts = ",".join([text for _, text in sorted(metas)])
    beside = {name: value for name, value in extras.get(key, {}).items() if name != "metas"}
    added = f",{dump(beside)[1:-1]}" if beside else ""
    return f'{quote(key)}:{{"metas":[{texts}]{added}}}'
