"""Limits on the data that peers or clients can make this node hold or receive at a time."""

#: Nodes that one node knows at a time, including the dead ones that it still remembers.
MAX_MEMBERS = 4096
#: Bytes in flight to a peer beyond which it counts as not reading. A link has to drain this many in
#: less than `down_after`.
MAX_IN_FLIGHT = 256 * 1024
#: Characters or bytes in the messages queued for one member without room, `MESSAGE_COST` for each
#: included.
MAX_WAITING = 64 * 1024 * 1024
#: Bytes that a queued message counts besides its payload and its names: the memory of its objects,
#: and the time to send one more frame.
MESSAGE_COST = 512
#: Bytes of a piece of a message of bytes; only its last piece is smaller. A heartbeat or a delta
#: waits for at most one piece, and a turn of the receiver handles about one.
PIECE = 64 * 1024
#: Characters or bytes of queued messages that are sent in one turn of the event loop, about. More
#: shortens a transfer, less lets other work run sooner.
ROUND_BUDGET = 64 * 1024
#: Bytes of unfinished messages that one node holds, over all links.
MAX_UNFINISHED = 64 * 1024 * 1024
#: Presences of one node that linger at a time after their owners are gone.
MAX_LINGERING = 100_000
#: Characters in the metas of the presences of one node that linger.
MAX_LINGERING_SIZE = 64 * 1024 * 1024
#: Bytes, about, at which a delta is cut, so that no turn of the event loop is long.
DELTA_BUDGET = 16 * 1024
