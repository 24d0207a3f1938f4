"""The slices held here, and their synchronization with other replicas.

Each link follows the slice of the replica at its other end: changes are pushed as they happen,
gathered for a few milliseconds under load, and encoded once for all followers at one position. Any
other slice is requested from a peer that states a higher version of it, one request at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from adsum.errors import ProtocolError

from .effects import EffectQueue
from .entry import size_of
from .limits import DELTA_BUDGET
from .links import Links, PeerLink
from .messages import Delta, Sync
from .sizes import Size
from .state import Replica, Slice
from .streams import CatchUp, SliceFeed, Staging, cut
from .timing import Timing
from .view import View
from .visibility import Visibility

#: Bytes of deltas, about, after which a flush ends and other work of the event loop has its turn.
FLUSH_BUDGET = 2 * DELTA_BUDGET
#: Links up to which `Timing.coalesce_interval` is used unchanged; beyond, it grows in proportion.
COALESCE_FOLLOWERS = 12
#: Seconds that the coalesce interval grows to at most.
COALESCE_MOST = 0.1


@dataclass(slots=True, eq=False)
class Held:
    """A slice held here, with its feeds to peers and its catch-up from one.

    Attributes:
        slice: The changes received so far.
        shown: Whether its entries are in the view.
        feeds: The feed of each link, by link id; the feed that has waited longest comes first.
        catch_up: The open request for missing changes, if any.
        followed: The link over which its owner was asked to push its changes.
    """

    slice: Slice
    shown: bool
    feeds: dict[int, SliceFeed] = field(default_factory=dict)
    catch_up: CatchUp | None = None
    followed: int | None = None


class Exchange:
    """The slices of one node: its own, and those of the members it knows.

    Args:
        replica: This node.
        view: The view into which slices are shown.
        links: The open links.
        effects: The queue for messages to peers.
        timing: The durations of the protocol.
    """

    def __init__(
        self, replica: Replica, view: View, links: Links, effects: EffectQueue, timing: Timing
    ) -> None:
        self.own = Held(Slice(replica), shown=True)
        self._replica = replica
        self._visibility = Visibility(view)
        self._links = links
        self._effects = effects
        self._timing = timing
        self._held: dict[Replica, Held] = {replica: self.own}
        # The slices that may have changes to send.
        self._dirty: dict[Held, None] = {}
        self._flushed_at = -timing.coalesce_interval

    def __iter__(self) -> Iterator[Held]:
        return iter(self._held.values())

    def __len__(self) -> int:
        return len(self._held)

    def of(self, replica: Replica) -> Held | None:
        """The slice of this very replica, if it is held."""
        return self._held.get(replica)

    def horizon_of(self, replica: Replica) -> int:
        """The version up to which the slice of a replica is held; 0 if it is not."""
        held = self._held.get(replica)
        return held.slice.horizon if held is not None else 0

    def changed(self) -> None:
        """Note that this node's own slice has changes to send."""
        self._dirty[self.own] = None

    # Showing.

    def show(self, replica: Replica, visible: bool) -> None:
        """Hold the slice of a replica, and show or hide its entries."""
        held = self._held.get(replica)
        if held is None:
            held = self._held[replica] = Held(Slice(replica), shown=False)
        if held.shown != visible:
            held.shown = visible
            self._visibility.turn(held.slice, visible)

    def moving(self, replica: Replica) -> bool:
        """Whether the slice of a replica is being shown or hidden, over several turns."""
        return replica in self._visibility

    def drop(self, replica: Replica) -> None:
        """Hide and discard the slice of a replica, if it is held."""
        held = self._held.get(replica)
        if held is None:
            return
        self.show(replica, visible=False)
        self._visibility.release(replica)
        del self._held[replica]
        self._dirty.pop(held, None)

    # Receiving.

    def follow(self, link: PeerLink, now: float) -> None:
        """Ask a replica to send its own slice above the local horizon, and later changes."""
        held = self.of(link.replica)
        if held is not None:
            self._request(held, link, now, follow=True)

    def ask(self, held: Held, link: PeerLink, now: float) -> None:
        """Request the missing changes of a slice from a peer that does not own it."""
        self._request(held, link, now, follow=False)

    def receive(self, link: PeerLink, delta: Delta, now: float) -> None:
        """Apply or stage a received delta; request the missing changes if a frame was lost.

        Raises:
            ProtocolError: The delta is about this node's own slice.
        """
        if delta.replica == self._replica:
            raise ProtocolError(f"{link.replica} sent a delta about the slice of this node")
        held = self.of(delta.replica)
        if held is None:
            return
        direct = link.replica == delta.replica
        catch_up = held.catch_up
        if catch_up is None or catch_up.link != link.id:
            if not direct:
                return  # a relayed delta that was not requested, or its request has expired
            catch_up = CatchUp(link.id, 0.0)
        staging = catch_up.staging
        if staging is not None and staging.add(delta):
            self._progress(held, catch_up, staging, delta, now)
        elif delta.after > (0 if delta.reset else held.slice.horizon):
            self._request(held, link, now, follow=direct)  # a frame is missing
        elif delta.last and not delta.reset:
            self._merge(held, delta)
            if catch_up is held.catch_up and staging is None:
                self._complete(held, now)
        else:
            catch_up.staging = staging = Staging(held.slice, delta)
            staging.add(delta)
            self._progress(held, catch_up, staging, delta, now)

    def give_up_stalled(self, now: float) -> None:
        """Expire requests without progress, so that they can be made again."""
        for held in self._held.values():
            if held.catch_up is not None and held.catch_up.until <= now:
                held.catch_up = None

    def _request(self, held: Held, link: PeerLink, now: float, *, follow: bool) -> None:
        """Request a slice, unless a request for it is already open."""
        if held.catch_up is None:
            held.catch_up = CatchUp(link.id, now + self._timing.sync_timeout)
            if follow:
                held.followed = link.id
            self._effects.send([link], Sync(held.slice.replica, held.slice.horizon, follow))

    def _merge(self, held: Held, delta: Delta) -> None:
        horizon = held.slice.horizon
        transitions = held.slice.apply(delta.changes, delta.upto)
        self._visibility.change(delta.replica, transitions, shown=held.shown)
        if held.feeds and held.slice.horizon > horizon:
            self._dirty[held] = None

    def _progress(
        self, held: Held, catch_up: CatchUp, staging: Staging, delta: Delta, now: float
    ) -> None:
        if not delta.last:
            catch_up.until = now + self._timing.sync_timeout
            held.catch_up = catch_up
            return
        held.slice = staging.install(self._visibility, shown=held.shown)
        self._complete(held, now)
        if held.feeds:
            self._dirty[held] = None

    def _complete(self, held: Held, now: float) -> None:
        """Close an answered request; follow the owner if a link to it has opened meanwhile."""
        held.catch_up = None
        links = self._links.to_replica(held.slice.replica)
        if held.followed is None and links:
            self.follow(links[-1], now)

    # Sending.

    def feed(self, link: PeerLink, sync: Sync) -> bool:
        """Start a feed that sends a peer the slice it requests, from the next flush on.

        Returns:
            False if the peer claims to have changes of this node's own slice that were never made.
        """
        held = self.of(sync.replica)
        if held is None:
            return True
        if sync.after > held.slice.horizon:
            return held is not self.own
        held.feeds[link.id] = SliceFeed(sync.after, sync.follow)
        self._dirty[held] = None
        return True

    def resume(self, link: PeerLink) -> None:
        """Continue the feeds of a link after its peer reads again; they may have fallen behind."""
        self._flushed_at -= self._interval
        behind = (held for held in self._held.values() if link.id in held.feeds)
        self._dirty.update(dict.fromkeys(behind))

    def forget_link(self, link: PeerLink) -> None:
        """Drop the feeds and requests of a link that has closed."""
        for held in self._held.values():
            held.feeds.pop(link.id, None)
            if held.catch_up is not None and held.catch_up.link == link.id:
                held.catch_up = None
            if held.followed == link.id:
                held.followed = None

    @property
    def flush_at(self) -> float:
        """When `flush` is due, in active time; infinite while there is nothing to do."""
        if self._visibility:
            return self._flushed_at
        return self._flushed_at + self._interval if self._dirty else float("inf")

    @property
    def _interval(self) -> float:
        """Seconds between two flushes under load.

        A flush costs its sender and the cluster a message for each follower. The interval therefore
        grows with the number of links, up to `COALESCE_MOST` and to a heartbeat. A change after a
        quiet interval is still sent at once.
        """
        timing = self._timing
        scaled = timing.coalesce_interval * len(self._links) / COALESCE_FOLLOWERS
        most = min(COALESCE_MOST, timing.heartbeat_interval)
        return max(timing.coalesce_interval, min(scaled, most))

    def flush(self, now: float) -> None:
        """Send pending changes over the feeds, up to the budget; the rest is sent in later turns.

        Slices that are being shown or hidden take a step as well.
        """
        self._visibility.step()
        self._flushed_at = now
        budget = FLUSH_BUDGET
        for held in list(self._dirty):
            del self._dirty[held]
            budget = self._send(held, budget)
            if budget <= 0:
                break
        if self._dirty:  # a backlog: coalescing would gain nothing, so flush again at once
            self._flushed_at -= self._interval

    def sizes(self, replicas: int) -> Iterator[Size]:
        """The numbers of slices and feeds, and the sizes of the slices.

        Args:
            replicas: The number of replicas that are members or departed, this node included.
        """
        yield Size("slices", len(self), replicas)
        yield Size("slices with something to send", len(self._dirty), len(self))
        for held in self:
            yield from held.slice.sizes()
            yield Size(f"feeds of {held.slice.replica}", len(held.feeds), len(self._links))

    def _send(self, held: Held, budget: int) -> int:
        """Send one delta over each feed of a slice that is behind; returns the remaining budget."""
        for (cursor, reset), links in self._behind(held).items():
            delta = cut(held.slice, cursor, reset)
            self._effects.send(links, delta)
            for link in links:
                feed = held.feeds.pop(link.id)  # to the end of the line
                if not feed.advance(delta):
                    held.feeds[link.id] = feed
            budget -= sum(map(size_of, delta.changes))
            if not delta.last or budget <= 0:
                self._dirty[held] = None
            if budget <= 0:
                break
        return budget

    def _behind(self, held: Held) -> dict[tuple[int, int], list[PeerLink]]:
        """The writable links with pending changes or an owed answer, by position of the feed."""
        behind: dict[tuple[int, int], list[PeerLink]] = {}
        for id, feed in held.feeds.items():
            if self._links[id].writable and (feed.owed or feed.cursor < held.slice.horizon):
                behind.setdefault(feed.position(held.slice), []).append(self._links[id])
        return behind
