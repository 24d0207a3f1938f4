"""The portal: presence and messages from threads and synchronous code.

A call is passed to the event loop of the node, and its thread waits for the result. The node runs
in a thread of the portal, or where the application has started it.

The files, from the ground up: `answer` is the result of one call, `callqueue` passes calls of
threads to an event loop, `nodethread` runs a node in a thread of its own. `portalconnection` starts
or finds the node of a process and executes calls there. `portaltracked` has the handles of
presences, `portalreaders` the watches and subscriptions; `portal` is the entry point.
"""

from .portal import Portal
from .portalreaders import PortalSubscription, PortalWatch
from .portaltracked import PortalTracked

__all__ = ["Portal", "PortalSubscription", "PortalTracked", "PortalWatch"]
