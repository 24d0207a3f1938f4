"""Message authentication of frames: a tag after each, which only the link's ends can make. No I/O.

The handshake proves that both ends know the secret, not that the bytes after it come from them: a
process that relays a whole handshake could add, alter, drop, reorder or repeat frames. So each end
of a link without other protection sends a tag after each frame and checks the tags of the peer. The
receiver gets a prefix of the frames sent, whatever happens to the bytes on the path.

That follows from these invariants:

1. A key belongs to one direction of one link. It is derived from the secret and both hellos (see
   `adsum.transport.handshake`), so a relay does not know it, and no frame of another link or of
   the other direction has a valid tag.
2. A tag covers the number of the frame in its direction, which starts at 0. The number is not
   sent: both ends count. So a frame that is repeated, or that follows a gap, has no valid tag.
3. A tag covers the frame exactly as it is sent: length, kind and body, after compression. So a
   frame is encoded and compressed once for all links, and only its tag is made for each.
4. The receiver checks the tag before it uses the kind, inflates or decodes. Before that it trusts
   only the length, which is bounded.
5. A wrong tag ends the link. An attacker has one attempt for each link, against 128 bits.

Tags provide neither secrecy nor delivery: an attacker on the path can still read, delay and cut.
"""

import hashlib
import hmac
from typing import Final

#: Bytes that follow each frame on an authenticated link.
TAG_BYTES: Final = 16

_NUMBER_BYTES: Final = 8


class FrameMac:
    """Makes the tags of one direction of one link, or checks them; it counts the frames itself.

    Args:
        key: The key of this direction.
    """

    def __init__(self, key: bytes) -> None:
        # A copy of a keyed state is cheaper than keying a new one for each frame.
        self._keyed = hashlib.blake2b(key=key, digest_size=TAG_BYTES)
        self._number = 0

    def tag(self, frame: bytes | memoryview) -> bytes:
        """Make the tag of the next frame, without copying the frame."""
        mac = self._keyed.copy()
        mac.update(self._number.to_bytes(_NUMBER_BYTES, "big"))
        mac.update(frame)
        self._number += 1
        return mac.digest()

    def accepts(self, frame: bytes | memoryview, tag: bytes | memoryview) -> bool:
        """Whether `tag` is valid for `frame` as the next frame. After False, stop using it."""
        return hmac.compare_digest(self.tag(frame), tag)
