"""Limits of the channel layer."""

#: Unread messages of one channel in one process at most, by default.
CAPACITY = 5_000
#: The largest capacity.
MAX_CAPACITY = 1_000_000_000
#: Bytes of the unread messages of one channel in one process at most.
MAX_UNREAD_BYTES = 64 * 1024 * 1024
#: Times its capacity, and times `MAX_UNREAD_BYTES`, that a channel accepts from other processes:
#: messages that were on their way while the channel announced that it is full.
OVERSHOOT = 2
#: Share of its capacity to which a full channel is read before other processes send to it again.
READY_AGAIN = 0.5
#: Seconds for which an unread message is kept, by default; and a channel on which nobody receives.
EXPIRY = 60.0
#: Seconds of an expiry at least; the checks within it take time.
MIN_EXPIRY = 0.1
#: Seconds of an expiry at most: a year.
MAX_EXPIRY = 365 * 86400.0
#: Checks for expired messages and abandoned channels within one expiry.
SWEEPS = 10
#: Seconds in which a process that ends passes its unread messages on to other receivers.
HAND_OVER = 1.0
#: Seconds in which another process answers that its channel has joined a group.
ANSWER_WITHIN = 1.0
#: Messages from other nodes that wait for the task that delivers them, at most.
INBOX_MESSAGES = 100_000
#: Bytes of these messages at most.
INBOX_BYTES = 256 * 1024 * 1024
