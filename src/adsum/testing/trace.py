"""What happens in a simulation, in words: one line for each message, the same in every run."""

from adsum.replication.messages import (
    Ask,
    Delta,
    Digest,
    Heartbeat,
    Leave,
    Message,
    Publish,
    Sync,
    Vouch,
)


def describe(message: Message) -> str:
    """A message in a few words."""
    match message:
        case Sync(replica, after, follow):
            return f"sync {replica} after {after}{' and follow' if follow else ''}"
        case Delta(replica, after, upto, changes, reset, last):
            stream = f" of the reset at {reset}" if reset else ""
            rest = "" if last else ", more follows"
            return f"delta {replica} ({after}, {upto}] {len(changes)} changes{stream}{rest}"
        case Heartbeat(counter, version):
            return f"heartbeat {counter} at {version}"
        case Digest(sightings, pull):
            told = " ".join(f"{s.replica}:{s.counter}/{s.version}" for s in sightings)
            return f"digest {told}{' pull' if pull else ''}"
        case Ask(replica):
            return f"ask {replica}"
        case Vouch(replica, counter):
            return f"vouch {replica}:{counter}"
        case Leave(linger):
            return f"leave, linger {linger:g}"
        case Publish(topic, event):
            return f"publish {topic!r} {event!r}"
