"""Reports a dial that opened no link to the engine, for drivers over any transport."""

from adsum.errors import DialRefusedError, HandshakeError
from adsum.replication.engine import Engine
from adsum.transport.handshake import SelfDialError


def report_failed_dial(engine: Engine, address: str, error: Exception, now: float) -> None:
    """Let the engine dial an address again, or not, by the reason of a failure.

    Args:
        engine: The engine that asked for the dial.
        address: The dialled address.
        error: The error of `Transport.dial`. One of any other kind counts as no answer.
        now: Monotonic seconds.
    """
    match error:
        case SelfDialError():
            engine.dialled_self(address)
        case DialRefusedError():
            engine.dial_failed(address, True, now)
        case HandshakeError():
            engine.dial_rejected(address, now)
        case _:
            engine.dial_failed(address, False, now)
