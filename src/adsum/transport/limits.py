"""The bounds of a transport: what may wait, how long, and what happens beyond."""

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a transport holds and how long it waits; the defaults suit almost everyone.

    Attributes:
        send_high_water: Bytes queued on a link, those of this loop turn included, above which the
            link is not writable; it is writable again below a quarter of this. Lower saves
            memory, higher lets one loop turn queue more.
        send_limit: Bytes waiting to be sent above which the link is closed: its peer reads too
            slowly and its handler does not heed the high-water mark.
        turn_budget: Bytes of uncompressed payload handed to the handler per turn of the event
            loop, over all links together (at least one frame). Lower keeps the loop responsive
            while much arrives, higher spends less time on switching.
        receive_backlog: Bytes received on a link and not yet handed over above which its socket is
            not read, so that the peer feels it.
        handshake_timeout: Seconds of active time that a peer may take to prove itself once
            connected, see `adsum.activetime`. With TLS, the handshake of TLS may take as long.
        connect_timeout: Seconds of active time to wait for one address to answer.
        close_grace: Seconds of active time that a closing link may take to send what is queued and
            hear the peer hang up. A stuck peer holds the memory of a closed link no longer.
        pending_handshakes: Accepted connections that have not proved themselves, over TCP and over
            Unix sockets each. Beyond it, one of the address that holds the most is dropped for the
            newest, see `adsum.transport.unproven`.
        pending_dials: Connections that are being dialled, or on which the peer has not proved
            itself; a dial beyond fails at once. Peers tell of addresses, so without a bound one
            of them could use up the files that this process may open.
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
