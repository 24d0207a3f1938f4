"""Links to siblings: the nodes of the same user and cluster on this host.

The socket of a running node may vanish: a logout removes the directory of the user, a cleaner of
temporary files removes files that look unused. Open links survive, but a node that starts later
would find no siblings. So each node checks every few seconds that its own socket is in place, and
searches for new sockets.
"""

import logging

from adsum.errors import ConfigurationError, ListenError
from adsum.replication.engine import Engine
from adsum.transport.discovery import SiblingDirectory
from adsum.transport.sockets import SocketTransport

logger = logging.getLogger("adsum.node")


class Siblings:
    """Keeps a node reachable for its siblings, and lets the engine dial them.

    Args:
        directory: The directory of the sockets.
        transport: The transport that listens.
        engine: The engine that dials.

    Attributes:
        address: The address at which siblings dial this node; None before `listen`.
        found: The addresses found by the last search, including those of dead siblings.
    """

    def __init__(
        self, directory: SiblingDirectory, transport: SocketTransport, engine: Engine
    ) -> None:
        self.address: str | None = None
        self.found: frozenset[str] = frozenset()
        self._directory = directory
        self._transport = transport
        self._engine = engine
        # Whether the present failure to renew the socket was logged.
        self._failing = False

    async def listen(self) -> None:
        """Listen at a new path in the directory.

        Raises:
            ConfigurationError: No directory is safe.
            ListenError: No socket can be created there.
        """
        path = self._directory.new_path()
        self._directory.sweep()
        try:
            self.address = await self._transport.listen(f"unix:{path}")
        except ListenError:
            if path.parent.exists():
                raise
            # The last node of the cluster has just removed the directory.
            path = self._directory.new_path()
            self.address = await self._transport.listen(f"unix:{path}")

    async def renew(self) -> bool:
        """Listen again if the socket was removed or replaced; returns whether it was renewed.

        A failure is logged once and returns False; the next call tries again.
        """
        lost = self.address
        if lost is None or self._transport.is_in_place(lost):
            return False
        try:
            await self.listen()
        except (ConfigurationError, ListenError) as error:
            if not self._failing:
                name = self._engine.replica
                logger.error("%s: siblings that start cannot find this node: %s", name, error)
            self._failing = True
            return False
        self._failing = False
        await self._transport.stop_listening(lost)
        text = "%s: the socket %s was removed; listening at %s instead"
        logger.warning(text, self._engine.replica, lost, self.address)
        return True

    def find(self) -> None:
        """Search for siblings: dial new ones, and stop dialling those that are gone."""
        try:
            found = self._directory.find(self.address)
        except OSError as error:  # no descriptors are left; the next search may have some
            logger.debug("%s: the search for siblings failed: %s", self._engine.replica, error)
            return
        for gone in self.found.difference(found):
            self._engine.remove_seed(gone)
        known = {
            member.address
            for member in self._engine.members()
            if not self._engine.lacks_direct_link(member.name)  # over a carrier alone
        }
        for address in found:
            if address not in known:
                self._engine.add_seed(address, lasting=False)
        self.found = frozenset(found)

    def forget_stale(self, address: str) -> None:
        """Remove the socket of a dead sibling, after a dial was refused."""
        self._directory.forget_stale(address)

    def leave(self) -> None:
        """Remove the directory of the cluster if this was its last node."""
        self._directory.leave()
