"""Limits on all data that peers and callers can make this node hold."""

#: Characters in a topic, a key or an event name.
MAX_NAME = 1024
#: Characters of JSON text in one meta.
MAX_META = 64 * 1024
#: Characters of JSON text in one published message.
MAX_PAYLOAD = 192 * 1024
#: Characters in the name of a node.
MAX_NODE_NAME = 255
#: Characters in one address of a node.
MAX_ADDRESS = 300
#: Addresses of one node.
MAX_ADDRESSES = 16
#: Nodes that one node knows at a time, including the dead ones that it still remembers.
MAX_MEMBERS = 4096
#: Counters, versions and incarnations are below this.
MAX_NUMBER = 2**63
#: Bytes in flight to a peer beyond which it counts as not reading. A link has to drain this many in
#: less than `down_after`.
MAX_IN_FLIGHT = 256 * 1024
#: Characters in the payloads of the messages queued for one member without room.
MAX_WAITING = 64 * 1024 * 1024
#: Bytes, about, at which a delta is cut, so that no turn of the event loop is long.
DELTA_BUDGET = 16 * 1024
#: Seconds that a goodbye may ask its presences to linger.
MAX_LINGER = 3600.0
