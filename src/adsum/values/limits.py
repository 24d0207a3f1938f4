"""Limits of names, metas, payloads and addresses: callers, peers and clients must keep them."""

#: Characters in a topic, a key or an event name.
MAX_NAME = 1024
#: Characters of JSON text in one meta.
MAX_META = 64 * 1024
#: Characters of JSON text in one published message.
MAX_PAYLOAD = 192 * 1024
#: Bytes in one published message of bytes.
MAX_DATA = 8 * 1024 * 1024
#: Characters in the name of a node or a cluster.
MAX_NODE_NAME = 255
#: Characters in one address of a node.
MAX_ADDRESS = 300
#: Addresses of one node.
MAX_ADDRESSES = 16
#: Seconds that a goodbye may ask its presences to linger.
MAX_LINGER = 3600.0
#: Counters, versions, incarnations and refs are below this number.
MAX_NUMBER = 2**63
#: Keys in one page of a topic.
MAX_PAGE = 5_000
