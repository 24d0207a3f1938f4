"""Services: register addresses, and resolve a service to one of its live instances.

Each instance is a presence on a topic that begins with the reserved prefix, tracked by the node
that registers it. So it ends with its node, and every node resolves from its own memory. Only the
owner removes its entry; the others skip an instance locally.

The files, from the ground up: `instance` has the form of an entry, `slot` the local state of an
instance, `pick` the strategies, `availability` the members that are in doubt; `directory` joins
them for one service, `resolver` for all services. `registration` and `healthcheck` are the
owner's side, `instanceswatch`, `use` and `attempts` the reader's. `run` is the state of one run of
a node, `services` the entry point.
"""

from .attempts import Attempt, Attempts
from .instance import Instance
from .instanceswatch import InstancesDiff, InstancesWatch
from .registration import Registration
from .services import Services
from .use import Use

__all__ = [
    "Attempt",
    "Attempts",
    "Instance",
    "InstancesDiff",
    "InstancesWatch",
    "Registration",
    "Services",
    "Use",
]
