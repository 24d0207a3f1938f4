"""Trace lines of messages in a simulation: one line a message, the same in every run."""

from adsum.replication.messages import (
    Ask,
    Delta,
    Digest,
    Goodbye,
    Heartbeat,
    Piece,
    ProtocolMessage,
    Publish,
    Pull,
    Sync,
    Vouch,
)


def describe(message: ProtocolMessage) -> str:  # noqa: C901  # a case a kind
    """Describe a message in one line."""
    match message:
        case Sync(replica, after, follow):
            return f"sync {replica} after {after}{' and follow' if follow else ''}"
        case Delta(replica, after, upto, changes, reset, last):
            stream = f" of the reset at {reset}" if reset else ""
            rest = "" if last else ", more follows"
            return f"delta {replica} ({after}, {upto}] {len(changes)} changes{stream}{rest}"
        case Heartbeat(counter, version, members, departed):
            return f"heartbeat {counter} at {version}, members {members:x}, departed {departed:x}"
        case Digest(sightings, farewells, last):
            seen = "".join(f" {s.replica}:{s.counter}/{s.version}" for s in sightings)
            gone = "".join(f" {f.replica} lingers {f.remaining:g}" for f in farewells)
            return f"digest{seen}{gone}{'' if last else ', more follows'}"
        case Pull(replicas, everything):
            named = "".join(f" {replica}" for replica in replicas)
            return f"pull{' everything' if everything else named}"
        case Ask(replica):
            return f"ask {replica}"
        case Vouch(replica, counter):
            return f"vouch {replica}:{counter}"
        case Goodbye(counter, version, linger):
            return f"goodbye {counter} at {version}, linger {linger:g}"
        case Publish(topic, event):
            return f"publish {topic!r} {event!r}"
        case Piece(number, topic, event, size, offset):
            return f"piece {topic!r} {event!r} {offset} of {size} in message {number}"
