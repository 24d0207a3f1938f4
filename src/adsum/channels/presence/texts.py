"""JSON texts of presence states and diffs, as clients read them. Pure.

Metas are stored as text, so a state or a diff is joined from texts without parsing or encoding.
"""

from collections.abc import Mapping
from typing import Any

from adsum.quoting import quoted
from adsum.replication.entry import VERSION, Entry, Transition
from adsum.replication.view import meta_text
from adsum.sparselog import SparseLogger
from adsum.values.jsontext import encode_object, quote
from adsum.values.limits import MAX_PAYLOAD
from adsum.watch import by_key

#: JSON text to add beside the metas of a key, as ``,"user":{...}``, by key.
Beside = Mapping[str, str]


def beside(
    topic: str, extras: Mapping[str, Mapping[str, Any]], log: SparseLogger
) -> dict[str, str]:
    """Encode the result of a `fetch` function, by key; logs and omits values that are not JSON."""
    texts: dict[str, str] = {}
    for key, extra in extras.items():
        added = {name: value for name, value in extra.items() if name != "metas"}
        try:
            text = encode_object(added, "fields", MAX_PAYLOAD)
        except (TypeError, ValueError) as error:
            message = "the fields that fetch added for %s on %s were dropped: %s"
            log.error(message, quoted(key), quoted(topic), str(error))
        else:
            texts[key] = f",{text[1:-1]}" if added else ""
    return texts


def state_text(entries: list[Entry], beside: Beside) -> str:
    """The presence state of a topic: ``{"ann":{"metas":[...]}}``.

    Args:
        entries: The presences.
        beside: Text to add beside ``metas``, by key.
    """
    return _object(entries, [meta_text(entry) for entry in entries], beside)


def diff_text(transitions: list[Transition], beside: Beside) -> str | None:
    """The presence diff ``{"joins":{...},"leaves":{...}}``; None if nothing changed.

    An update has the new meta among the joins, with a reference to the old one, and the old meta
    among the leaves.
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
