"""The stated maximum of everything that a peer or a caller can make this node hold."""

#: Characters in a topic, a key or an event name.
MAX_NAME = 1024
#: Characters of JSON text in one meta.
MAX_META = 64 * 1024
#: Characters of JSON text in one published message.
MAX_PAYLOAD = 192 * 1024
#: Characters in the name of a node, and in one of its addresses; addresses of one node.
MAX_NODE_NAME = 255
MAX_ADDRESS = 300
MAX_ADDRESSES = 16
#: Nodes that one node will know of at a time, the dead ones that it still remembers included.
MAX_MEMBERS = 4096
#: Counters, versions and incarnations stay below this.
MAX_NUMBER = 2**63
#: What is under way to a peer before it counts as one that does not read. Draining this much in
#: less than `down_after` is what a link has to manage.
MAX_IN_FLIGHT = 256 * 1024
#: A delta is cut when it reaches about this many bytes, so no turn of a loop is long.
DELTA_BUDGET = 16 * 1024
#: Seconds for which a goodbye may ask that its presences be shown.
MAX_LINGER = 3600.0
