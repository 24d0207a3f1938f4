"""`SharedText`: the text of a presence state or diff, and the frames around it. Pure."""

from adsum.channels.wire.frames import Ref, Serializer
from adsum.channels.wire.prepared import Prepared

#: Frames kept for one text, and characters of the texts in them; a text has at least one frame.
_MAX_FRAMES, _MAX_KEPT = 16, 1024 * 1024


class SharedText:
    """A text that many clients are sent, each in a frame with the `join_ref` of its join.

    Diffs carry the `join_ref` too. Otherwise a client that leaves and rejoins at once would apply
    diffs that are still in flight to the state of its new join. Clients have few different ones,
    since most count from 1, so the frames are shared by version and `join_ref`. A client can
    choose any, so the frames kept are bounded; the others are made for one client.
    """

    __slots__ = ("_event", "_frames", "_topic", "text")

    def __init__(self, topic: str, event: str, text: str) -> None:
        self._topic = topic
        self._event = event
        self.text = text
        self._frames: dict[tuple[Serializer, Ref], Prepared] = {}

    def frame(self, serializer: Serializer, join_ref: Ref) -> Prepared:
        """The frame for a client."""
        found = self._frames.get((serializer, join_ref))
        if found is None:
            wire = serializer.message(join_ref, None, self._topic, self._event, self.text)
            found = Prepared(wire)
            kept = len(self._frames)
            if kept < _MAX_FRAMES and kept * len(self.text) < _MAX_KEPT:
                self._frames[serializer, join_ref] = found
        return found
