"""Limits of a transport: bounds on queues, connections and waiting, and their effects."""

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class TransportLimits:
    """Bounds on the memory and the waiting of a transport; the defaults suit almost every cluster.

    A node overrides `send_high_water` and `turn_budget`, see `adsum.driver.socketdriver`.

    Attributes:
        send_high_water: Bytes queued on a link, including this loop turn, above which the link is
            not writable; it is writable again at a quarter of this. Lower saves memory, higher
            lets one loop turn queue more.
        send_limit: Bytes queued on a link above which the link is closed: its peer reads too
            slowly and its handler ignores the high-water mark.
        turn_budget: Bytes of uncompressed payload handed to the handler per turn of the event
            loop, over all links together (at least one frame). Lower keeps the loop responsive
            while much arrives, higher spends less time on switching.
        receive_backlog: Bytes received on a link and not yet delivered above which its socket is
            not read, which applies backpressure to the peer.
        handshake_timeout: Seconds of active time that a peer may take to prove itself once
            connected, see `adsum.activetime`. With TLS, the TLS handshake may take as long again.
        connect_timeout: Seconds of active time to wait for one address to answer.
        close_grace: Seconds of active time that a closing link may take to send its queued frames
            and see the peer hang up. A stuck peer holds the memory of a closed link no longer.
        pending_handshakes: Accepted connections that have not proved themselves, over TCP and over
            Unix sockets each. Beyond it, one of the address that holds the most is dropped for the
            newest, see `adsum.transport.unproven`.
        pending_dials: Connections that are being dialled, or on which the peer has not proved
            itself; a dial beyond fails at once. Peers send addresses to dial, so without a bound
            one peer could use up the file descriptors of this process.
    """

    send_high_water: int = 1 * MIB
    send_limit: int = 8 * MIB
    turn_budget: int = 64 * KIB
    receive_backlog: int = 256 * KIB
    handshake_timeout: float = 5.0
    connect_timeout: float = 3.0
    close_grace: float = 1.0
    pending_handshakes: int = 64
    pending_dials: int = 128
