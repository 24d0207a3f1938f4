"""The rule for Unix sockets without a secret: both ends belong to one user.

The permissions of a socket and of its directory decide which users can connect to it, and a user
with write access to the directory can listen in its place. Both may be open to other users, so
without a secret each end asks the kernel for the user of the other end. It must be the effective
user of this process or root, because root could act as that user anyway. On a platform that does
not report the user, permissions are the only protection.
"""

import os

_ROOT = 0


def foreign_user(user: int | None, secret: bytes | None) -> str:
    """The reason to refuse a peer on a Unix socket; empty if it may link.

    Args:
        user: The user id of the peer, or None if the platform does not report it.
        secret: The shared secret, or None. With a secret, a peer of any user may prove itself.
    """
    own = os.geteuid()
    if secret or user is None or user in (own, _ROOT):
        return ""
    return (
        f"the peer belongs to user {user}, this process to user {own}; without a secret both must "
        "belong to one user; set secret= (ADSUM_SECRET) to the same long random string on both"
    )
