"""Fingerprints of sets of replicas: two nodes compare their sets by one number.

A fingerprint is the exclusive or of the marks of a set. It does not depend on the order, an empty
set has 0, and adding or removing a replica costs the same at any size.
"""

from functools import lru_cache
from hashlib import blake2b

from .limits import MAX_MEMBERS
from .state import Replica

#: Bytes in a mark. Two different sets have equal fingerprints once in 16 million cases.
_MARK_BYTES = 3


@lru_cache(maxsize=2 * MAX_MEMBERS)
def mark(replica: Replica) -> int:
    """The share of one replica in a fingerprint: 24 bits of a hash of its name and incarnation."""
    text = f"{replica.name}@{replica.incarnation}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=_MARK_BYTES).digest(), "big")
