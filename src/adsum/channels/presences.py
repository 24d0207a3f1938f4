"""Presences as the JSON texts that clients read: who is on a topic, and what changed. Pure.

Metas are kept as text, so a state or a diff is joined from texts; nothing is parsed or encoded.
"""

from collections.abc import Mapping
from typing import Any

from adsum.quoting import quoted
from adsum.replication.entry import VERSION, Entry, Transition
from adsum.replication.jsontext import encode_object, quote
from adsum.replication.limits import MAX_PAYLOAD
from adsum.replication.view import meta_text
from adsum.sparselog import SparseLogger
from adsum.watching import by_key

#: What to add beside the metas of a key, as ``,"user":{...}``.
Beside = Mapping[str, str]


def beside(
    topic: str, extras: Mapping[str, Mapping[str, Any]], log: SparseLogger
) -> dict[str, str]:
    """What a `fetch` function added, as text by key; what is no JSON is logged and left out."""
    texts: dict[str, str] = {}
    for key, extra in extras.items():
        added = {name: value for name, value in extra.items() if name != "metas"}
        try:
            text = encode_object(added, "it", MAX_PAYLOAD)
        except (TypeError, ValueError) as error:
            message = "what fetch added for %s on %s is left out: %s"
            log.error(message, quoted(key), quoted(topic), str(error))
        else:
            texts[key] = f",{text[1:-1]}" if added else ""
    return texts


def state_text(entries: list[Entry], beside: Beside) -> str:
    """Everybody on a topic: ``{"ann":{"metas":[...]}}``.

    Args:
        entries: Who is there.
        beside: What to add beside ``metas``, by key.
    """
    return _object(entries, [meta_text(entry) for entry in entries], beside)


def diff_text(transitions: list[Transition], beside: Beside) -> str | None:
    """What changed: ``{"joins":{...},"leaves":{...}}``; None if nothing did.

    An update is the new meta among the joins, naming the old one, which is among the leaves.
    """
    joins, leaves = list[Entry](), list[Entry]()
    joined, left = list[str](), list[str]()
    for old, new in transitions:
        if old is not None:
            leaves.append(old)
            left.append(meta_text(old))
        if new is not None:
            joins.append(new)
            joined.append(meta_text(new) if old is None else meta_text(new, old[VERSION]))
    if not joins and not leaves:
        return None
    joins_text, leaves_text = _object(joins, joined, beside), _object(leaves, left, beside)
    return f'{{"joins":{joins_text},"leaves":{leaves_text}}}'


def _object(entries: list[Entry], metas: list[str], beside: Beside) -> str:
    """Entries by key, as JSON text."""
    texts = [
        f'{quote(key)}:{{"metas":[{",".join(own)}]{beside.get(key, "")}}}'
        for key, own in by_key(entries, metas).items()
    ]
    return f"{{{','.join(texts)}}}"
