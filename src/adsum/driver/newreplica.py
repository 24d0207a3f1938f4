"""The replica of a new run: its name, if the settings give none, and its incarnation."""

import os
import secrets
import socket
import time

from adsum.replication.state import Replica
from adsum.values.limits import MAX_NODE_NAME

#: Random bytes in an automatic name. With 8, a million nodes collide with a probability of 3e-8.
NAME_ENTROPY = 8


def new_replica(name: str | None) -> Replica:
    """The replica of a run that starts now; a name is drawn if there is none."""
    return Replica(name or unique_name(), _incarnation())


def unique_name() -> str:
    """A name for one run of one process, drawn at start, so that workers forked later differ.

    In containers host names and process ids repeat, so the random part alone must be unique.
    """
    suffix = f"-{os.getpid()}-{secrets.token_hex(NAME_ENTROPY)}"
    return socket.gethostname()[: MAX_NODE_NAME - len(suffix)] + suffix


def _incarnation() -> int:
    """A new incarnation: higher than earlier ones, and different for starts in one millisecond."""
    return (time.time_ns() // 1_000_000 << 20) | secrets.randbits(20)
