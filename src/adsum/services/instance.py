"""`Instance`: one address at which a service answers, and its form as a presence.

The topic of a service is the reserved prefix with the name, the key is the address, and the meta is
``{"meta": {...}, "tags": [...], "weight": 1.0}``. Entries of peers are checked: one of another form
is not listed.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from adsum.arguments import instance, is_number, refuse
from adsum.quoting import described, quoted
from adsum.replication.entry import ID, INCARNATION, KEY, META, NAME, Entry
from adsum.values.frozen import FrozenDict, freeze
from adsum.values.jsontext import encode_object, load
from adsum.values.limits import MAX_ADDRESS, MAX_META
from adsum.values.names import RESERVED, checked_name, is_name

#: Topics of services begin with this.
PREFIX = f"{RESERVED}services/"
#: Characters in the name of a service, and in a tag.
MAX_SERVICE, MAX_TAG = 100, 64
#: Tags of one instance.
MAX_TAGS = 16
#: Characters of JSON text in the meta of an instance.
MAX_INSTANCE_META = 32 * 1024
#: The weights of an instance that is not drained.
LEAST_WEIGHT, MOST_WEIGHT = 0.001, 1000.0

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Instance:
    """One address at which a service answers. Read-only.

    Attributes:
        name: The name of the service.
        address: The address, as the application's clients understand it.
        node: The name of the node that registered it.
        tags: Its tags, sorted.
        weight: Its share of the requests, relative to other instances; 0 if it is drained.
        meta: A JSON object of the application.
        id: Identifies this registration in the cluster; constant through updates.
    """

    name: str
    address: str
    node: str
    tags: tuple[str, ...] = ()
    weight: float = 1.0
    meta: Mapping[str, Any] = field(default_factory=FrozenDict, hash=False)
    id: str = ""


def topic_of(name: str) -> str:
    """The topic of a service."""
    return PREFIX + name


def checked_service(name: object) -> str:
    """Check the name of a service: it must fit as the host of a URL, so case does not count.

    Raises:
        ConfigurationError: It has other characters, or is too long.
        TypeError: It is not a string.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {described(name)}")
    if not _NAME.fullmatch(name):
        refuse(
            "name",
            name,
            f"1 to {MAX_SERVICE} lower-case letters, digits, dots, hyphens and underscores, "
            "beginning with a letter or digit",
        )
    return str.__str__(name)


def checked_address(address: object) -> str:
    """Check an address; only the application's clients know its form.

    Raises:
        TypeError: It is not a string.
        ValueError: It is empty or too long.
    """
    return checked_name(address, "address", MAX_ADDRESS)


def checked_tag(tag: object, field: str = "tag") -> str:
    """Check one tag.

    Raises:
        TypeError: It is not a string.
        ValueError: It is empty or too long.
    """
    return checked_name(tag, field, MAX_TAG)


def checked_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Check the tags of an instance; returns each once, sorted.

    Raises:
        ConfigurationError: There are too many, or `tags` is a text or not iterable.
        TypeError: One of them is not a string.
        ValueError: One of them is empty or too long.
    """
    if isinstance(tags, str | bytes) or not isinstance(tags, Iterable):
        refuse("tags", tags, 'a list of texts, such as ["eu"]')
    found = tuple(sorted({checked_tag(tag, "tags: a tag") for tag in tags}))
    if len(found) > MAX_TAGS:
        refuse("tags", found, f"{MAX_TAGS} tags at most, not {len(found)}")
    return found


def checked_weight(weight: Any) -> float:
    """Check a weight.

    Raises:
        ConfigurationError: It is not a number of the range.
    """
    if not _is_weight(weight):
        refuse(
            "weight",
            weight,
            f"a number from {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}, or 0 for no new requests",
        )
    return float(weight)


def checked_instance(value: object, field: str = "instance") -> Instance:
    """Check that an argument is an instance.

    Raises:
        ConfigurationError: It is not.
    """
    return instance(field, value, Instance, "an instance, as `resolve` returns it")


def ids_of(instances: Iterable[Instance]) -> frozenset[str]:
    """The ids of instances that are excluded.

    Raises:
        ConfigurationError: One of them is not an instance.
    """
    if not instances:  # the fast path, for nearly every pick
        return frozenset()
    return frozenset(checked_instance(one, "exclude").id for one in instances)


def encode_instance(tags: tuple[str, ...], weight: float, meta: object) -> str:
    """The text of the presence of an instance.

    Raises:
        TypeError: The meta is not a JSON object; the error names its path.
        ValueError: The meta is not finite, too deep or too large.
    """
    encode_object(meta, "meta", MAX_INSTANCE_META)
    whole = {"meta": meta, "tags": list(tags), "weight": weight}
    return encode_object(whole, "the instance", MAX_META)


def decode_instance(name: str, entry: Entry) -> Instance | None:
    """The instance of an entry; None if a peer sent an entry of another form."""
    parts = load(entry[META])
    tags, weight, meta = parts.get("tags"), parts.get("weight"), parts.get("meta")
    if not (_are_tags(tags) and _is_weight(weight) and isinstance(meta, dict)):
        return None
    if len(entry[KEY]) > MAX_ADDRESS:
        return None
    return Instance(
        name,
        entry[KEY],
        entry[NAME],
        tuple(tags),
        float(weight),
        freeze(meta),
        id_of(entry),
    )


def id_of(entry: Entry) -> str:
    """The id of the instance of an entry."""
    return f"{entry[INCARNATION]:x}-{entry[ID]:x}@{entry[NAME]}"


def shown(name: str, tag: str | None) -> str:
    """A service and a tag, in messages."""
    return quoted(name) if tag is None else f"{quoted(name)} with the tag {quoted(tag)}"


def _are_tags(tags: object) -> bool:
    return (
        isinstance(tags, list)
        and len(tags) <= MAX_TAGS
        and all(is_name(tag, MAX_TAG) for tag in tags)
    )


def _is_weight(weight: Any) -> bool:
    if not is_number(weight) or math.isinf(weight):
        return False
    return bool(weight == 0 or LEAST_WEIGHT <= weight <= MOST_WEIGHT)
