"""Limits of virtual links: bytes in flight and kept, waits, and numbers of handshakes."""

from typing import Final

KIB: Final = 1024

#: Bytes in flight on a link beyond which it is not writable; it is again at a quarter of this.
WINDOW: Final = 256 * KIB
#: Bytes received on a link after which the peer is sent an acknowledgement.
REPORT_EVERY: Final = 32 * KIB
#: Bytes of casts that are kept until all peers have acknowledged them; beyond, the oldest is
#: dropped, and a peer that lacks it loses its link.
MAX_CASTS_KEPT: Final = 4 * WINDOW
#: Bytes of frames that a link stores while an earlier one is missing; more are dropped, and are
#: sent again later.
MAX_STORED: Final = 2 * WINDOW
#: Links that a cast may leave out; if more are left out, each of the others is sent to alone.
MAX_EXCLUDED: Final = 1024
#: Handshakes under way that others began; beyond, the oldest is dropped. All members of the largest
#: cluster may dial a newcomer at once.
MAX_GREETINGS: Final = 4096
#: Handshakes under way that this node began less than `DIAL_PATIENCE` ago; further dials wait, and
#: their time has not begun.
MAX_DIALS: Final = 4
#: The part of them with nodes that were not heard, which may be stopped: see `dialqueue`.
MAX_SILENT_DIALS: Final = 2
#: Dials to such nodes that wait; further ones fail at once.
MAX_SILENT_WAITING: Final = 16
#: Nodes without a link that are remembered as heard; beyond, the oldest is forgotten. All members
#: of the largest cluster may announce themselves at once, as after a long absence of the bus.
MAX_HEARD: Final = 4096

#: Bytes of a message that an engine has to accept: a frame of `FRAME_LIMIT`, and the lists of links
#: of a cast.
LEAST_PAYLOAD: Final = 320 * KIB

#: Bytes in the backlog of the client beyond which messages on topics wait; they are sent again at a
#: quarter of this.
TOPIC_BACKLOG: Final = 256 * KIB
#: Bytes of received messages in the queue beyond which those on topics are dropped, so that a flood
#: of them neither delays nor replaces the frames of links for long.
MAX_TOPIC_QUEUED: Final = 8 * 1024 * KIB

#: Bytes of messages on topics, of all nodes together, that wait until a link to their publisher has
#: begun, and is confirmed after an absence from the bus; beyond, the node with the most bytes loses
#: its newest one.
MAX_WAITING_BULLETINS: Final = 1024 * KIB

#: Seconds between two looks at the backlog while messages on topics wait.
BACKLOG_INTERVAL: Final = 0.005
#: Seconds, at most, for which a subject stays subscribed after its last topic is unwanted. So
#: subscribers that come and go cost the engine no more than two commands for each subject in it.
UNFOLLOW_AFTER: Final = 1.0
#: Seconds that a handshake waits for each message of the other end, which both ends may have begun.
#: An inbox without a subscriber is refused at once, so this is the time of a busy or stopped node.
DIAL_TIMEOUT: Final = 10.0
#: Seconds after which a dial without an answer leaves its place to the next one, and goes on.
DIAL_PATIENCE: Final = 3.0
#: Seconds between two probes of the neighbour in the ring.
PROBE_INTERVAL: Final = 0.25
#: Seconds between two answers to announcements of one node that has returned to the bus.
GREETING_INTERVAL: Final = 0.05
#: Seconds between two announcements, about: a split that heals without a disconnect is noticed.
ANNOUNCE_INTERVAL: Final = 30.0
#: Seconds after its last message for which a node without a link counts as heard: longer than the
#: longest time between two announcements.
HEARD_FOR: Final = 40.0
#: Seconds after a missing frame was noticed until it is requested again; doubles each time.
RESEND_AFTER: Final = 0.25
#: Seconds after the opening of a link until its first frame is requested again: in a start of many
#: nodes it is more likely late than lost.
FIRST_AFTER: Final = 1.0
#: Seconds that a link without room waits for a report before it asks for one.
REPORT_PATIENCE: Final = 1.0
#: Seconds after which a link with a missing frame is closed.
RESEND_PATIENCE: Final = 10.0
#: Seconds after a return to the bus in which the others may be returning, too: nobody's absence
#: means anything until then.
RETURN_GRACE: Final = 5.0
#: Seconds of connection to the bus after which a link is closed whose peer has not been heard since
#: an earlier connection. Else a connection that breaks again and again would hold a dead peer.
UNHEARD_PATIENCE: Final = 10.0
#: Seconds before a deadline at which it is due: two floats for the same moment may differ slightly.
RESOLUTION: Final = 1e-6
