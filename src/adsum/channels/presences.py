"""Presences as the JSON texts that clients read: who is on a topic, and what changed. Pure.

Metas are kept as text, so a state or a diff is joined from texts; nothing is parsed or encoded.
"""

import logging
from collections.abc import Mapping

from adsum.replication.entry import KEY, VERSION, Entry, Identity, Transition, identity
from adsum.replication.jsontext import encode_object, quote
from adsum.replication.limits import MAX_PAYLOAD
from adsum.replication.view import meta_text
from adsum.watching import Entries

logger = logging.getLogger("adsum")

#: What to add beside the metas of a key, as ``,"user":{...}``.
Beside = Mapping[str, str]

_EMPTY_DIFF = '{"joins":{},"leaves":{}}'


def beside(topic: str, extras: Entries) -> dict[str, str]:
    """What a `fetch` function added, as text by key; what is no JSON is logged and left out."""
    texts: dict[str, str] = {}
    for key, extra in extras.items():
        added = {name: value for name, value in extra.items() if name != "metas"}
        try:
            text = encode_object(added, "it", MAX_PAYLOAD)
        except (TypeError, ValueError) as error:
            logger.error("what fetch added for %.100r on %.100r is left out: %s", key, topic, error)
        else:
            texts[key] = f",{text[1:-1]}" if added else ""
    return texts


def state_text(entries: list[Entry], beside: Beside) -> str:
    """Everybody on a topic: ``{"ann":{"metas":[...]}}``.

    Args:
        entries: Who is there.
        beside: What to add beside ``metas``, by key.
    """
    return _by_key([(entry, meta_text(entry)) for entry in entries], beside)


def diff_text(transitions: list[Transition], beside: Beside) -> str | None:
    """What changed: ``{"joins":{...},"leaves":{...}}``; None if nothing did.

    An update is the new meta among the joins, naming the old one, which is among the leaves.
    """
    joins, leaves = list[tuple[Entry, str]](), list[tuple[Entry, str]]()
    for old, new in transitions:
        if old is not None:
            leaves.append((old, meta_text(old)))
        if new is not None:
            joins.append((new, meta_text(new) if old is None else meta_text(new, old[VERSION])))
    text = f'{{"joins":{_by_key(joins, beside)},"leaves":{_by_key(leaves, beside)}}}'
    return None if text == _EMPTY_DIFF else text


def _by_key(metas: list[tuple[Entry, str]], beside: Beside) -> str:
    """Metas by key, in the order in which every node lists them."""
    by_key: dict[str, list[tuple[Identity, str]]] = {}
    for entry, text in metas:
        by_key.setdefault(entry[KEY], []).append((identity(entry), text))
    return "{" + ",".join([_entry(key, by_key[key], beside) for key in sorted(by_key)]) + "}"


def _entry(key: str, metas: list[tuple[Identity, str]], beside: Beside) -> str:
    texts = ",".join([text for _, text in sorted(metas)])
    return f'{quote(key)}:{{"metas":[{texts}]{beside.get(key, "")}}}'
