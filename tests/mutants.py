"""Break the core in many small ways, and see that the tests catch every one: `make mutants`.

Each mutant is one line of the core replaced in a copy of the project. Two things look at the copy:
trials, seed after seed, whose laws are checked at each step; and the tests of the core. The table
has what each of them saw first. A mutant that both miss is a law that nobody checks.

Mutants outside the core are checked by the tests that they name; no trial reaches them.

    python -m tests.mutants              all of them
    python -m tests.mutants gap vouch    those whose description has one of these words
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
CORE = Path("src/adsum/replication")
CORE_TESTS = ("tests/replication", "tests/replication/test_invariants.py")
#: Tests of goodbyes, digests and joining.
RELAYED = (
    "tests/replication/test_departures.py",
    "tests/replication/test_digests.py",
    "tests/replication/test_goodbyes.py",
    "tests/replication/test_joining.py",
    "tests/replication/test_cluster.py",
    "tests/hostile/test_goodbyes.py",
    "tests/hostile/test_claims.py",
)
#: Tests of held links, of the pace in a crowd, and of links of two kinds.
HOLD = ("tests/replication/test_hold.py",)
PACE = ("tests/replication/test_pace.py",)
KINDS = ("tests/replication/test_redundancy.py", "tests/replication/test_dialler.py")
#: Tests of the protocol for uvicorn, and of direct connections.
PROTOCOL = ("tests/channels/test_uvicorn_protocol.py",)
DIRECT = ("tests/channels/test_direct_connections.py",)
#: Tests of messages of bytes.
LARGE_MESSAGES = (
    "tests/replication/test_large_messages.py",
    "tests/replication/test_codec.py",
    "tests/hostile/test_pieces.py",
)
#: Tests of handlers and sends that begin in place.
IDLE = ("tests/channels/test_idle_memory.py",)
IN_PLACE = ("tests/channels/test_standing_tasks.py", "tests/channels/test_writing_in_place.py")
#: Tests of virtual links over a bus.
VIRTUAL_LINKS = ("tests/bus/test_buscore.py",)
#: Clusters on the simulated bus.
BUS_TRIALS = ("tests/bus/test_bustrials.py",)
#: Tests of the check of many objects at once.
PLAIN_TESTS = ("tests/values/test_plainjson.py",)
#: Tests of the transport on a bus, and of nodes with a carrier.
BUS_TRANSPORT = ("tests/bus/test_bustransport.py", "tests/transport/test_conformance.py")
CARRIER = ("tests/node/test_carrier.py", "tests/node/test_config.py")
#: A mutant that makes the tests hang is caught as well.
TIMEOUT = 300.0
HANGS = "(it hangs)"
#: So many seeds are tried, ...
SEEDS = 120
#: ... one after the other, and the first that fails tells its law.
TRIALS = f"""
from adsum.testing.simulator.trial import Trial
for seed in range({SEEDS}):
    try:
        Trial.from_seed(seed).run()
    except Exception as error:
        what = str(error).split(": ", 1)[-1]
        print(f"seed {{seed}}: {{type(error).__name__}}: {{what}}")
        break
"""


class Mutant(NamedTuple):
    """One way to break the project: a text of one file, and what to put in its place.

    Attributes:
        what: What it does.
        file: The path of the file, from the folder of the core.
        text: A text that is there once.
        instead: What to put in its place.
        tests: The tests that have to fail.
    """

    what: str
    file: str
    text: str
    instead: str
    tests: tuple[str, ...] = CORE_TESTS


MUTANTS = [
    Mutant(
        "drop the gap check",
        "exchange.py",
        "elif delta.after > (0 if delta.reset else held.slice.horizon):",
        "elif False:",
    ),
    Mutant(
        "apply what the horizon covers",
        "state.py",
        "if change[VERSION] <= horizon:\n                continue",
        "pass",
    ),
    Mutant(
        "install a catch-up piece by piece",
        "exchange.py",
        "        if not delta.last:\n            catch_up.until",
        "        if False:\n            catch_up.until",
    ),
    Mutant(
        "skip the sweep after a reset",
        "streams.py",
        "(entry, None) for id, entry in old.entries.items() if id not in new.entries",
        "(entry, None) for id, entry in old.entries.items() if False",
    ),
    Mutant(
        "let a stale catch-up overwrite newer values",
        "streams.py",
        "if self.horizon <= current.horizon:",
        "if False:",
    ),
    Mutant(
        "take a reset that begins anew for its own continuation",
        "streams.py",
        "or delta.reset != self._reset:",
        "or bool(delta.reset) != bool(self._reset):",
    ),
    Mutant(
        "forget the floor under a feed",
        "streams.py",
        "if slice.floor > max(self.cursor, self.reset):",
        "if False:",
    ),
    Mutant(
        "forget when a reset began",
        "streams.py",
        "if slice.floor > max(self.cursor, self.reset):",
        "if slice.floor > self.cursor and not self.reset:",
    ),
    Mutant(
        "keep no floor after a reset",
        "streams.py",
        "self._built.forget_removals()",
        "pass",
    ),
    Mutant(
        "never raise the floor",
        "state.py",
        "                self.floor = change[VERSION]",
        "                pass",
    ),
    Mutant(
        "let gossip revive the dead at once",
        "liveness.py",
        "if before is Status.DOWN and not member.advanced_once:",
        "if False:",
    ),
    Mutant(
        "show who is only heard of",
        "liveness.py",
        "            self._bring_down(member, now)\n            member.advanced_once = True",
        "            self._prove(member, now)",
    ),
    Mutant(
        "count paused time as silence",
        "clock.py",
        "self.active += counted",
        "self.active += gap",
    ),
    Mutant(
        "let a vouch hold for ever",
        "liveness.py",
        "member.vouches.setdefault(by, now + self.pace.vouch_grace)",
        "member.vouches.setdefault(by, now + 1e9)",
    ),
    Mutant(
        "never take back a word",
        "liveness.py",
        "if member is not None and member.vouches.pop(by, None) is not None:",
        "if False:",
    ),
    Mutant(
        "let every newcomer take a name",
        "liveness.py",
        "return member.status is Status.UP or (suspect and doubtful)",
        "return False",
    ),
    Mutant(
        "never forget the dead",
        "liveness.py",
        "member.until = now + self._timing.forget_after",
        "member.until = now + 1e9",
    ),
    Mutant(
        "ignore the version in heartbeats",
        "membership.py",
        "heartbeat.version > held.slice.horizon or held.followed is None",
        "held.followed is None",
    ),
    Mutant(
        "follow nobody after a relayed answer",
        "exchange.py",
        "if held.followed is None and links:",
        "if False:",
    ),
    Mutant(
        "wait for an answer for ever",
        "exchange.py",
        "if held.catch_up is not None and held.catch_up.until <= now:",
        "if False:",
    ),
    Mutant(
        "believe what others say of this node's slice",
        "exchange.py",
        "        if delta.replica == self._replica:",
        "        if False:",
    ),
    Mutant(
        "believe that this node made what it never made",
        "exchange.py",
        "return held is not self.own",
        "return True",
    ),
    Mutant(
        "take relays that nobody asked for",
        "exchange.py",
        "            if not direct:\n                return",
        "            if False:\n                return",
    ),
    Mutant(
        "insist where a link was refused",
        "reconciler.py",
        "self.dialler.wait(name, self.clock.active)  # it was refused",
        "self.dialler.hurry(name, self.clock.active)  # it was refused",
    ),
    Mutant(
        "never pull for a replica that is not heard directly",
        "digests.py",
        "        if not missing:\n            return",
        "        if True:\n            return",
        RELAYED,
    ),
    Mutant(
        "send no addresses in digests",
        "digests.py",
        "addresses = () if known else member.addresses",
        "addresses = ()",
        RELAYED,
    ),
    Mutant(
        "pull nothing over a new link",
        "admission.py",
        "if self.links.should_introduce():",
        "if False:",
        RELAYED,
    ),
    Mutant(
        "ignore the fingerprint of the living",
        "digests.py",
        "if differs and now >= self._everything_at:",
        "if False:",
        RELAYED,
    ),
    Mutant(
        "ignore the fingerprint of the lingering",
        "digests.py",
        "elif heartbeat.departed != self._departures.fingerprint or (",
        "elif False or (",
        RELAYED,
    ),
    Mutant(
        "push no goodbye to peers that lack it",
        "digests.py",
        "if replica in link.lacks and link.writable]",
        "if False]",
        RELAYED,
    ),
    Mutant(
        "apply a relayed goodbye of a node that is heard",
        "goodbyes.py",
        "if replica == self.me or self.digests.has_live_link(replica, self.clock.active):",
        "if replica == self.me:",
        RELAYED,
    ),
    Mutant(
        "apply a relayed goodbye with an old counter",
        "goodbyes.py",
        "if member is not None and farewell.counter <= member.counter:",
        "if False:",
        RELAYED,
    ),
    Mutant(
        "let nothing refute a goodbye",
        "goodbyes.py",
        "if counter <= min(link.first_counter, departure.counter):",
        "if True:",
        RELAYED,
    ),
    Mutant(
        "let a relay extend a linger",
        "departures.py",
        "return sure and known.lingers and until < known.until",
        "return sure and known.lingers",
        RELAYED,
    ),
    Mutant(
        "let a linger begin again",
        "departures.py",
        "return sure and known.lingers and until < known.until",
        "return sure and (not known.lingers or until < known.until)",
        RELAYED,
    ),
    Mutant(
        "count a linger in active time",
        "clock.py",
        "self.elapsed += gap",
        "self.elapsed += counted",
        RELAYED,
    ),
    Mutant(
        "relay a goodbye that waited in a buffer",
        "goodbyes.py",
        "        absence = self.clock.recent_absence\n",
        "        absence = 0.0\n",
        RELAYED,
    ),
    Mutant(
        "forget a departed replica at once",
        "departures.py",
        "departure.until = now + self._timing.forget_after",
        "departure.until = now",
        RELAYED,
    ),
    Mutant(
        "drop the slice of a replica that lingers",
        "reconciler.py",
        "if not self.departures.lingers(replica):",
        "if True:",
        RELAYED,
    ),
    Mutant(
        "drop the slice of the present life with that of its former life",
        "goodbyes.py",
        "        for replica in self.departures.expire(elapsed, sure=sure):\n"
        "            self.exchange.drop(replica)",
        "        for replica in self.departures.expire(elapsed, sure=sure):\n"
        "            self.exchange.drop(self.reconciler.replicas.get(replica.name, replica))",
        RELAYED,
    ),
    Mutant(
        "keep the silent links of a replica whose goodbye was relayed",
        "goodbyes.py",
        "        if not known:  # its links",
        "        if False:  # its links",
        RELAYED,
    ),
    Mutant(
        "take the first frame of a peer for its digest",
        "digests.py",
        "link.awaiting &= not link.greeted",
        "link.awaiting = False",
        RELAYED,
    ),
    Mutant(
        "take a lost link for an answer",
        "reconciler.py",
        "if awaited and link.replica not in self.departures:",
        "if False:",
        RELAYED,
    ),
    Mutant(
        "let a request name replicas without a bound",
        "digests.py",
        "tuple(next(_cut(replicas[:MAX_NAMED], _replica_size), []))",
        "tuple(replicas[:MAX_NAMED])",
        RELAYED,
    ),
    Mutant(
        "fetch no slice that lingers",
        "goodbyes.py",
        "if held is None or farewell.held <= held.slice.horizon:",
        "if True:",
        RELAYED,
    ),
    Mutant(
        "join before the slices have arrived",
        "joining.py",
        "if not (self._addresses or self._links or self._versions):",
        "if not (self._addresses or self._links):",
        RELAYED,
    ),
    Mutant(
        "join before an address has answered",
        "joining.py",
        "if not (self._addresses or self._links or self._versions):",
        "if not (self._links or self._versions):",
        RELAYED,
    ),
    Mutant(
        "join with relayed members while they are dialled",
        "joining.py",
        "return not self._open_links.to_replica(member.replica)",
        "return False",
        RELAYED,
    ),
    Mutant(
        "wait for links to members that cannot be dialled",
        "joining.py",
        "LINK_PATIENCE = 1.0",
        "LINK_PATIENCE = 100.0",
        RELAYED,
    ),
    Mutant(
        "gather changes as long with many links as with few",
        "exchange.py",
        "return max(timing.coalesce_interval, min(scaled, most))",
        "return timing.coalesce_interval",
    ),
    Mutant(
        "let nobody know that an update replaced something",
        "ownslice.py",
        "meta, old[VERSION], self._name",
        "meta, None, self._name",
    ),
    Mutant(
        "compact away what is alive",
        "state.py",
        "                if entries.get(change[ID]) is change:\n                    kept",
        "                if change[VERSION] > self.floor:\n                    kept",
    ),
    Mutant(
        "never compact",
        "state.py",
        "if len(self._log) > 2 * (len(self.entries) + SPARE_HISTORY):",
        "if False:",
    ),
    Mutant(
        "show what is hidden",
        "liveness.py",
        "return self.status is not Status.DOWN",
        "return True",
    ),
    Mutant(
        "lose the second presence of a key",
        "view.py",
        "if len(held) == 1:",
        "if len(held) >= 1:",
    ),
    Mutant(
        "list in the order of arrival",
        "view.py",
        "self._rendered = self._render(sorted(self.keys))",
        "self._rendered = self._render(list(self.keys))",
    ),
    Mutant(
        "leave a departed key in the order of pages",
        "view.py",
        "self._order.discard(key)",
        "pass",
        ("tests/replication/test_view.py",),
    ),
    Mutant(
        "leave a key that joined out of the order of pages",
        "view.py",
        "self._order.add(key)",
        "pass",
        ("tests/replication/test_view.py",),
    ),
    Mutant(
        "keep the order of pages when another view is absorbed",
        "view.py",
        "        self.keys.update(other.keys)\n        self._rendered = self._order = None",
        "        self.keys.update(other.keys)\n        self._rendered = None",
        ("tests/replication/test_view.py",),
    ),
    Mutant(
        "repeat the last key of the page before",
        "keyorder.py",
        "start = bisect_right(held, key) if not found else 0",
        "start = bisect_left(held, key) if not found else 0",
        ("tests/replication/test_keyorder.py",),
    ),
    Mutant(
        "sort a key into two ranges of a page",
        "keyorder.py",
        "if low < key <= high",
        "if low <= key <= high",
        ("tests/replication/test_keyorder.py",),
    ),
    Mutant(
        "let a range of keys grow without a bound",
        "keyorder.py",
        "if len(held) > 4 * RANGE:",
        "if False:",
        ("tests/replication/test_keyorder.py",),
    ),
    Mutant(
        "share nested values of a meta that can be altered",
        "view.py",
        "metas = [freeze(meta) for meta in metas]",
        "pass",
        ("tests/replication/test_view.py",),
    ),
    Mutant(
        "encode DEL as the accelerator does",
        "../values/jsontext.py",
        '        return dump(value) if "\\x7f" in text else text',
        "        return text",
        ("tests/values/test_accelerator.py",),
    ),
    Mutant(
        "leave the collector of a forked child disabled",
        "../collector.py",
        "        _active.clear()\n        gc.enable()",
        "        _active.clear()",
        ("tests/test_collector.py",),
    ),
    Mutant(
        "let a message overtake those that wait",
        "messaging.py",
        " and name not in self._queues",
        "",
    ),
    Mutant(
        "send messages over a link that the other end may close",
        "links.py",
        "if link.kept:",
        "if True:",
    ),
    Mutant(
        "continue a large message over another link",
        "messaging.py",
        "self._index if link is self._link else 0",
        "self._index",
        LARGE_MESSAGES,
    ),
    Mutant(
        "go on with the next message where the last one was given up",
        "messaging.py",
        "        self._index = 0\n        return sending",
        "        return sending",
        LARGE_MESSAGES,
    ),
    Mutant(
        "send a whole large message in one turn",
        "messaging.py",
        "return bool(self.ready) and self._budget > 0",
        "return bool(self.ready)",
        LARGE_MESSAGES,
    ),
    Mutant(
        "send a frame to each of many members in one turn",
        "messaging.py",
        "                if self._budget <= 0:\n",
        "                if False:\n",
        LARGE_MESSAGES,
    ),
    Mutant(
        "let any number of small messages wait",
        "effects.py",
        "len(self.message.topic) + len(self.message.event) + MESSAGE_COST",
        "0",
        LARGE_MESSAGES,
    ),
    Mutant(
        "keep the messages for a peer that stops reading after its publisher was released",
        "messaging.py",
        "        self.check_at = min(self.check_at, since + PATIENCE)\n",
        "",
        LARGE_MESSAGES,
    ),
    Mutant(
        "forget to go on with a large message in the next turn",
        "engine.py",
        "        if self._messaging.ready:\n            at",
        "        if False:\n            at",
        LARGE_MESSAGES,
    ),
    Mutant(
        "encode a piece again for a member that lags behind",
        "messaging.py",
        "sending if reused else None",
        "None",
        LARGE_MESSAGES,
    ),
    Mutant(
        "join pieces of different messages",
        "reassembly.py",
        "if message.head != _head(piece) or message.received",
        "if message.received",
        LARGE_MESSAGES,
    ),
    Mutant(
        "join pieces with a gap between them",
        "reassembly.py",
        " or message.received != piece.offset:",
        ":",
        LARGE_MESSAGES,
    ),
    Mutant(
        "hold unfinished messages without a bound",
        "reassembly.py",
        "if self._reserved + piece.size > limits.MAX_UNFINISHED:",
        "if False:",
        LARGE_MESSAGES,
    ),
    Mutant(
        "keep a message that its sender gave up",
        "engine.py",
        "self._reassembly.expire(now - self._timing.down_after)",
        "pass",
        LARGE_MESSAGES,
    ),
    Mutant(
        "keep the unfinished message of a link that has ended",
        "reconciler.py",
        "        self.reassembly.interrupt(link.id)\n",
        "",
        LARGE_MESSAGES,
    ),
    Mutant(
        "keep an unfinished message when another one follows",
        "engine.py",
        "                self._reassembly.interrupt(id)\n",
        "",
        LARGE_MESSAGES,
    ),
    Mutant(
        "accept pieces of any length",
        "codec.py",
        "if len(data) != min(PIECE, size - offset):",
        "if len(data) > size - offset:",
        LARGE_MESSAGES,
    ),
    Mutant(
        "accept pieces that begin anywhere",
        "codec.py",
        "if offset % PIECE or offset > max(0, size - 1):",
        "if offset > size:",
        LARGE_MESSAGES,
    ),
    Mutant(
        "accept messages of any size",
        "codec.py",
        "if size > MAX_DATA:",
        "if False:",
        LARGE_MESSAGES,
    ),
    Mutant(
        "compress data that does not shrink",
        "../transport/framing.py",
        "if size >= COMPRESSION_THRESHOLD and _shrinks(payload):",
        "if size >= COMPRESSION_THRESHOLD:",
        ("tests/transport/test_framing.py",),
    ),
    Mutant(
        "drop the newest message of a subscription instead of the oldest",
        "../pubsub.py",
        "self._size -= self._messages.popleft()[1]",
        "self._size -= self._messages.pop()[1]",
        ("tests/node/test_pubsub.py",),
    ),
    Mutant(
        "drop a message that is larger than the limit of a subscription",
        "../pubsub.py",
        "while len(self._messages) > 1 and self._is_full():",
        "while self._messages and self._is_full():",
        ("tests/node/test_pubsub.py",),
    ),
    Mutant(
        "let a closed subscription stay on its topics",
        "../pubsub.py",
        "        for topic in self._topics:\n            self._run.leave(topic, self)\n",
        "",
        ("tests/node/test_pubsub.py",),
    ),
    Mutant(
        "publish bytes that their owner may change",
        "../pubsub.py",
        "return bytes(payload)  # the same object if it is immutable already",
        "return payload",
        ("tests/node/test_pubsub.py",),
    ),
    Mutant(
        "wait again and again for a peer that does not read",
        "messaging.py",
        "if dropped_at <= now or not queue.add(sending):",
        "if not self._links.of(name) or not queue.add(sending):",
    ),
    Mutant(
        "let the state wait behind messages",
        "engine.py",
        "if self._exchange.flush_at <= self._clock.active + RESOLUTION:",
        "if False:",
    ),
    Mutant(
        "forget that a member of a large group changed",
        "keygroup.py",
        "            self._answer.stale.add(name)",
        "            pass",
    ),
    Mutant(
        "put who joins a large group at its end",
        "keygroup.py",
        "answer.order.insert(at, name)",
        "answer.order.append(name)",
    ),
    Mutant(
        "show again what is still shown when a slice turns round",
        "visibility.py",
        "for id, entry in left.items() if id not in move.left}",
        "for id, entry in left.items()}",
    ),
    Mutant(
        "take another copy of a slice for the one that is on its way out",
        "visibility.py",
        "if move is not None and move.released:",
        "if False:",
    ),
    Mutant(
        "update what is not shown yet",
        "visibility.py",
        "self._view.change(None if waited is not None else old, new)",
        "self._view.change(old, new)",
    ),
    Mutant(
        "let what changes on the way out stay",
        "visibility.py",
        "self._view.change(waited, None)",
        "pass",
    ),
    Mutant(
        "show a large slice in one turn",
        "visibility.py",
        "count = min(most, len(self.left))",
        "count = len(self.left)",
    ),
    Mutant(
        "let a function that makes a meta change the presence itself",
        "../tracked.py",
        "if self._entry() is not old:",
        "if False:",
        ("tests/node/test_presence.py",),
    ),
    Mutant(
        "leave a callback on a task for each presence that it tracked",
        "../owners.py",
        "            owner.remove_done_callback(self._task_ended)\n        return",
        "            pass\n        return",
        ("tests/node/test_presence.py",),
    ),
    Mutant(
        "leave a callback on a task for each run of the node",
        "../owners.py",
        "                owner.remove_done_callback(self._task_ended)",
        "                pass",
        ("tests/node/test_closed_loops.py",),
    ),
    Mutant(
        "take a feed along into the next run of the node",
        "../watchfeeds.py",
        "feeds, self._by_topic = self._by_topic, {}",
        "feeds = self._by_topic",
        ("tests/node/test_closed_loops.py",),
    ),
    Mutant(
        "fold hiding and showing into an update",
        "../watch.py",
        "return before[VERSION] == after[VERSION]",
        "return before is after",
        ("tests/node/test_watch.py",),
    ),
    Mutant(
        "forget what a slow reader knew of what flaps",
        "../watch.py",
        "before = pending.pop(name)[0] if name in pending else old",
        "before = (pending.pop(name)[1] if name in pending else None) or old",
        ("tests/node/test_watch.py",),
    ),
    Mutant(
        "keep the extras of what is folded away",
        "../watch.py",
        "                self._extras.pop(name, None)",
        "                pass",
        ("tests/node/test_watch.py",),
    ),
    Mutant(
        "let a reader take half of a batch",
        "../watch.py",
        "return not self._merging and (bool(self._pending) or self._first)",
        "return bool(self._pending) or self._first",
        ("tests/node/test_watch.py",),
    ),
    Mutant(
        "leave new topics out of a watch of several",
        "view.py",
        "            topic.watched = name in self._watched or name.startswith(self._prefixes)",
        "            topic.watched = name in self._watched",
        ("tests/replication/test_view.py", "tests/node/test_watch_topics.py"),
    ),
    Mutant(
        "leave absorbed topics unmarked",
        "view.py",
        "            other.topics[name].watched = True",
        "            pass",
        ("tests/replication/test_view.py", "tests/node/test_watch_topics.py"),
    ),
    Mutant(
        "collect changes for a prefix that is watched no longer",
        "view.py",
        "self._mark([*names, *self._changes])",
        "self._mark(self._changes)",
        ("tests/replication/test_view.py",),
    ),
    Mutant(
        "pass on a change that the first diff of its topic has",
        "../topicswatch.py",
        "if self._closed or topic in self._first:",
        "if self._closed:",
        ("tests/node/test_watch_topics.py",),
    ),
    Mutant(
        "make the first diff of a topic before earlier changes are passed on",
        "../topicswatch.py",
        "        self._driver.notify_observers()  # the next first diff has these changes",
        "        pass",
        ("tests/node/test_watch_topics.py",),
    ),
    Mutant(
        "let a key arrive with each meta",
        "../topicswatch.py",
        "        before = keys & known.keys()",
        "        before = set[str]()",
        ("tests/node/test_watch_topics.py",),
    ),
    Mutant(
        "let the silence of a held replica count",
        "liveness.py",
        '        if member.held_at is not None:\n            return float("inf")\n',
        "",
        HOLD,
    ),
    Mutant(
        "hold a replica that has a direct link as well",
        "links.py",
        "return bool(links) and all(link.held for link in links)",
        "return any(link.held for link in links)",
        HOLD,
    ),
    Mutant(
        "give a member no new time after its hold",
        "liveness.py",
        "            member.fresh_at = now\n            member.until = max(",
        "            member.until = max(",
        HOLD,
    ),
    Mutant(
        "let a suspicion run on while its replica is held",
        "liveness.py",
        "        member.until += now - (member.held_at or 0.0)\n",
        "",
        HOLD,
    ),
    Mutant(
        "give a suspect less than link_grace after its hold",
        "liveness.py",
        "member.until = max(member.until, now + self._timing.link_grace)",
        "pass",
        HOLD,
    ),
    Mutant(
        "close held links for their silence",
        "reconciler.py",
        "            if link.held:\n                continue\n",
        "",
        HOLD,
    ),
    Mutant(
        "close a link at once when it is no longer held",
        "reconciler.py",
        "max(link.received_at, link.resumed_at) < since",
        "link.received_at < since",
        HOLD,
    ),
    Mutant(
        "close a link that was not read while it was held",
        "reconciler.py",
        "max(link.stuck_at, link.resumed_at) < since",
        "link.stuck_at < since",
        HOLD,
    ),
    Mutant(
        "keep the hold of a replica whose last link is lost",
        "reconciler.py",
        "        self.links.remove(link)\n        self.update_hold(link.replica)",
        "        self.links.remove(link)",
        HOLD,
    ),
    Mutant(
        "keep the hold of a replica with a new link",
        "admission.py",
        "        self.reconciler.update_hold(link.replica)\n",
        "",
        HOLD,
    ),
    Mutant(
        "let a held replica keep its name against a newer incarnation",
        "liveness.py",
        "            return replica < member.replica\n",
        "            return True\n",
        HOLD,
    ),
    Mutant(
        "suspect a held replica whose name is claimed",
        "liveness.py",
        "                if member.held_at is None:\n                    self._doubt(",
        "                if True:\n                    self._doubt(",
        HOLD,
    ),
    Mutant(
        "let joining wait for held links",
        "joining.py",
        "if link.held and self._is_over(link.received_at):",
        "if False:",
        HOLD,
    ),
    Mutant(
        "let joining wait for held replicas",
        "joining.py",
        "(not member.alive or member.held_at is not None):",
        "not member.alive:",
        HOLD,
    ),
    Mutant(
        "ask over held links",
        "links.py",
        "if link.writable and not link.held]",
        "if link.writable]",
        HOLD,
    ),
    Mutant(
        "vouch for a replica whose link is held",
        "links.py",
        "link.received_at >= since and not link.held for link",
        "link.received_at >= since for link",
        HOLD,
    ),
    Mutant(
        "let deadlines shrink at once with the number of members",
        "crowdpace.py",
        "        if now >= self._span_ends_at:\n            self._factor,",
        "        if True:\n            self._factor,",
        PACE,
    ),
    Mutant(
        "forget the largest number of the last span",
        "crowdpace.py",
        "self._factor, self._largest = self._largest, 1.0",
        "self._factor, self._largest = 1.0, 1.0",
        PACE,
    ),
    Mutant(
        "let deadlines never shrink",
        "crowdpace.py",
        "self._factor, self._largest = self._largest, 1.0",
        "self._factor = self._largest",
        PACE,
    ),
    Mutant(
        "let a newcomer ignore how many its first digest lists",
        "membership.py",
        "self.liveness.pace.expect(self.liveness.listed())",
        "pass",
        PACE,
    ),
    Mutant(
        "let deadlines follow a new member with the next heartbeat",
        "liveness.py",
        "            self.pace.expect(self.alive)\n",
        "",
        PACE,
    ),
    Mutant(
        "send heartbeats as often in a crowd",
        "crowdpace.py",
        "self._timing.heartbeat_interval * self._factor_of(alive)",
        "self._timing.heartbeat_interval",
        PACE,
    ),
    Mutant(
        "let active time lag behind slow heartbeats",
        "engine.py",
        "return liveness.pace.longest_interval",
        "return self._timing.heartbeat_interval",
        PACE,
    ),
    Mutant(
        "close silent links in a crowd as early as in a small cluster",
        "reconciler.py",
        "patience = self.liveness.pace.down_after",
        "patience = self.timing.down_after",
        PACE,
    ),
    Mutant(
        "keep a link over a carrier beside a direct one",
        "membership.py",
        "        self.redundancy.prefer_direct(link)\n",
        "",
        KINDS,
    ),
    Mutant(
        "keep a new link over a carrier beside a direct one",
        "redundancy.py",
        "if not new.direct and any(self._is_direct_and_open(link) for link in links):",
        "if False:",
        KINDS,
    ),
    Mutant(
        "close a new link over a carrier although the direct one is silent",
        "redundancy.py",
        "return link.direct and link.greeted and self._is_live(link)",
        "return link.direct and link.greeted",
        KINDS,
    ),
    Mutant(
        "close a new direct link beside one over a carrier",
        "redundancy.py",
        "link is not new and link.direct is new.direct]",
        "link is not new]",
        KINDS,
    ),
    Mutant(
        "let a link over a carrier replace a direct one",
        "redundancy.py",
        "                if link.direct is new.direct:\n",
        "                if True:\n",
        KINDS,
    ),
    Mutant(
        "dial no sibling that has a link over a carrier",
        "dialler.py",
        "reached = direct if target.seed and target.direct else linked",
        "reached = linked",
        KINDS,
    ),
    Mutant(
        "dial a seed on a carrier beside a link over it",
        "dialler.py",
        "reached = direct if target.seed and target.direct else linked",
        "reached = direct if target.seed else linked",
        KINDS,
    ),
    Mutant(
        "dial a member with a link over a carrier at its other addresses",
        "dialler.py",
        "reached = direct if target.seed and target.direct else linked",
        "reached = direct",
        KINDS,
    ),
    Mutant(
        "forget a sibling whose direct link was lost beside another",
        "reconciler.py",
        "                self._redial(link)  # over the rest it can be reached, but not directly\n",
        "                pass\n",
        KINDS,
    ),
    Mutant(
        "leave a found sibling with a link over a carrier",
        "../driver/siblings.py",
        "if not self._engine.lacks_direct_link(member.name)",
        "if True",
        ("tests/node/test_siblings.py",),
    ),
    Mutant(
        "ask no further peer for a lingering slice that the first ones lack",
        "digests.py",
        "not link.greeted and next(self._incomplete(), None) is not None",
        "False",
        ("tests/replication/test_joining.py",),
    ),
    Mutant(
        "miss that a member went down",
        "liveness.py",
        "        if member.status is not status:\n            self.revision += 1",
        "        pass",
        ("tests/node/test_watch_members.py",),
    ),
    Mutant(
        "miss that the linger of a member ended",
        "departures.py",
        "        if departure.lingers is not lingers:\n            self.revision += 1",
        "        pass",
        ("tests/node/test_watch_members.py",),
    ),
    Mutant(
        "try a step that failed again at once",
        "../driver/linkdriver.py",
        "        self._rest_until = self._now() + self.settings.timing.heartbeat_interval",
        "        pass",
        ("tests/node/test_engine_failures.py",),
    ),
    Mutant(
        "set no timer after a step that failed",
        "../driver/linkdriver.py",
        "            self._wake_at(self._rest_until)",
        "            pass",
        ("tests/node/test_engine_failures.py",),
    ),
    Mutant(
        "keep the slot of a handshake that failed",
        "../transport/linkpool.py",
        "        self._dialled.discard(connection)\n        self._connections.discard(connection)",
        "        self._connections.discard(connection)",
        ("tests/hostile/test_wire.py",),
    ),
    Mutant(
        "drop the oldest of too many unproven connections",
        "../transport/unproven.py",
        "candidates[(len(candidates) - 1) // 2]",
        "candidates[0]",
        ("tests/transport/test_unproven.py",),
    ),
    Mutant(
        "keep the slot of a dial that failed",
        "../transport/linkpool.py",
        "            self._connecting -= 1",
        "            pass",
        ("tests/hostile/test_wire.py",),
    ),
    Mutant(
        "leave the number of a frame out of its tag",
        "../transport/frame_mac.py",
        "        self._number += 1",
        "        pass",
        ("tests/transport/test_frame_mac.py",),
    ),
    Mutant(
        "use one key for both directions",
        "../transport/handshake.py",
        "_DIALLER_KEY if of_dialler else _ACCEPTOR_KEY",
        "_DIALLER_KEY",
        ("tests/transport/test_frame_mac.py",),
    ),
    Mutant(
        "send a goodbye without a tag",
        "../transport/link.py",
        "        self.connection.queue(encode_close(reason))",
        "        self.connection._outbound.append(encode_close(reason))",
        ("tests/transport/test_handshake_relay.py",),
    ),
    Mutant(
        "take every Unix peer for a process of this user",
        "../transport/sockets.py",
        "            return user == os.geteuid()",
        "            return True",
        ("tests/transport/test_handshake_relay.py",),
    ),
    Mutant(
        "count an unproven connection that has ended",
        "../transport/linkpool.py",
        "        self._forget_unproven(connection)\n"
        "        self._dialled.discard(connection)\n        self._connections",
        "        self._dialled.discard(connection)\n        self._connections",
        ("tests/transport/test_connection_ends.py",),
    ),
    Mutant(
        "handle a refusal before the messages that precede it",
        "../bus/bustransport.py",
        "self._enqueue(partial(self._core.refused, probe))",
        "self._call(self._core.refused, probe)\n        self._schedule()",
        BUS_TRANSPORT,
    ),
    Mutant(
        "carry out all outputs of a core in one turn",
        "../bus/bustransport.py",
        "            size = max(size, self._perform(self._events.popleft()))",
        "            size = max(size, *[self._perform(event) for event in self._events])\n"
        "            self._events.clear()",
        BUS_TRANSPORT,
    ),
    Mutant(
        "queue messages of a bus without a bound",
        "../bus/bustransport.py",
        "if self._queued + len(data) > MAX_QUEUED:",
        "if False:",
        BUS_TRANSPORT,
    ),
    Mutant(
        "report a full window after the send",
        "../bus/bustransport.py",
        "case RoomChanged(number, writable) if self._note_room(number, writable):",
        "case RoomChanged(number, writable) if self._note_room(number, writable) and False:",
        BUS_TRANSPORT,
    ),
    Mutant(
        "deliver frames of a closed virtual link",
        "../bus/bustransport.py",
        "if link is None or not link.open:\n            return\n        try:",
        "if link is None:\n            return\n        try:",
        BUS_TRANSPORT,
    ),
    Mutant(
        "publish in a forked child",
        "../bus/bustransport.py",
        "if numbers and not self.inherited:",
        "if numbers:",
        BUS_TRANSPORT,
    ),
    Mutant(
        "add up the outages of a carrier",
        "../bus/bustransport.py",
        "        self._lost_at = None\n        self._end_patience()",
        "        self._lost_at = None",
        BUS_TRANSPORT,
    ),
    Mutant(
        "dial an address on a bus twice at a time",
        "../bus/bustransport.py",
        "dial = self._dials.get(address)\n",
        "dial = None\n",
        BUS_TRANSPORT,
    ),
    Mutant(
        "wait for an engine that hangs beyond the stop",
        "../bus/bustransport.py",
        "            self._end_dials()\n            cancel_task(self._connecting)",
        "            self._end_dials()",
        CARRIER,
    ),
    Mutant(
        "wait for other nodes although the carrier has none",
        "../driver/carrierdriver.py",
        '        """See `CarrierHandler`."""\n        self._carrier_answered()',
        '        """See `CarrierHandler`."""',
        CARRIER,
    ),
    Mutant(
        "wait for the carrier although siblings are all nodes",
        "../driver/carrierdriver.py",
        "        if self._links:\n            self._carrier_answered()",
        "        pass",
        CARRIER,
    ),
    Mutant(
        "dial siblings over the carrier at once",
        "../driver/carrierdriver.py",
        "        if not sibling:\n",
        "        if True:\n",
        CARRIER,
    ),
    Mutant(
        "never dial siblings over the carrier",
        "../driver/carrierdriver.py",
        "            if not self._is_linked(address):\n                self._dial_now(address)",
        "            pass",
        CARRIER,
    ),
    Mutant(
        "accept a carrier beside addresses",
        "../config.py",
        'for name in ("listen", "advertise", "peers", "tls"):',
        'for name in ("tls",):',
        CARRIER,
    ),
    Mutant(
        "ignore the durations of a carrier",
        "../config.py",
        "defaults = Timing() if carrier is None else carrier_timing()",
        "defaults = Timing()",
        CARRIER,
    ),
    Mutant(
        "open a link on a connection that is lost",
        "../transport/greeting.py",
        "    delivers_all = False",
        "    delivers_all = True",
        ("tests/transport/test_connection_ends.py",),
    ),
    Mutant(
        "keep a connection that is made after its end",
        "../transport/streamconnection.py",
        "            wire.abort()\n            return\n        # The high",
        "            return\n        # The high",
        ("tests/transport/test_connection_ends.py",),
    ),
    Mutant(
        "close a link while its reading is paused",
        "../transport/streamconnection.py",
        "                self._resume_reading()\n        self.drop_outbound()",
        "                pass\n        self.drop_outbound()",
        ("tests/transport/test_connection_ends.py",),
    ),
    Mutant(
        "linger on a wire that is lost",
        "../transport/streamconnection.py",
        "if wire is None or self._gone:",
        "if wire is None:",
        ("tests/transport/test_connection_ends.py",),
    ),
    Mutant(
        "hold the connection of a self-dial without a limit",
        "../transport/greeting.py",
        "            connection.linger()\n            return",
        "            return",
        ("tests/transport/test_connection_ends.py",),
    ),
    Mutant(
        "take a TLS error in the handshake for a busy peer",
        "../transport/greeting.py",
        "HandshakeError if isinstance(error, ssl.SSLError) else DialError",
        "DialError",
        ("tests/transport/test_connection_ends.py",),
    ),
    Mutant(
        "leave a dial without an outcome if the handler raises",
        "../transport/greeting.py",
        "        try:\n            connection.hand_over(link)\n"
        "        finally:\n            self._resolve(None)",
        "        connection.hand_over(link)\n        self._resolve(None)",
        ("tests/transport/test_conformance.py",),
    ),
    Mutant(
        "answer a question with an unsure goodbye",
        "suspicion.py",
        "if departure is not None and departure.sure:",
        "if departure is not None:",
        ("tests/replication/test_engine.py",),
    ),
    Mutant(
        "dial a refused node again at once",
        "admission.py",
        "        self.dialler.wait(replica.name, self.clock.active)\n",
        "",
        ("tests/replication/test_engine.py",),
    ),
    Mutant(
        "end lingering presences a second before their deadlines",
        "grace.py",
        "self._queue.lowest > now:",
        "self._queue.lowest > now + 1.0:",
    ),
    Mutant(
        "double the time for which a presence lingers",
        "engine.py",
        "self._clock.active + seconds, claim, hold)",
        "self._clock.active + 2 * seconds, claim, hold)",
    ),
    Mutant(
        "count the pauses of the process towards a grace",
        "engine.py",
        "for id in self._grace.due(due):",
        "for id in self._grace.due(self._clock.elapsed + RESOLUTION):",
    ),
    Mutant(
        "count a grace from the tick before the break",
        "engine.py",
        "        self._advance(now)\n        self._grace.keep(",
        "        self._grace.keep(",
    ),
    Mutant(
        "request no tick for a deadline of grace",
        "engine.py",
        "            self._grace.check_at,\n",
        "",
    ),
    Mutant(
        "give an heir a new presence beside the lingering one",
        "engine.py",
        "        id = self._grace.heritage(topic, key, claim)\n",
        "        id = None\n",
    ),
    Mutant(
        "let a presence linger on after it was taken over",
        "engine.py",
        "        self._grace.forget(id)\n        return entry if",
        "        return entry if",
    ),
    Mutant(
        "keep the grace of a presence that was untracked",
        "engine.py",
        "        self._grace.forget(entry[ID])\n",
        "",
    ),
    Mutant(
        "replace the meta of a presence that is taken over with an equal one",
        "engine.py",
        "entry if entry[META] == meta else self.update(entry, meta)",
        "self.update(entry, meta)",
    ),
    Mutant(
        "let any owner take over",
        "../owners.py",
        "Claim(owner, owner)",
        "Claim(owner, PASSING)",
        ("tests/node/test_grace.py",),
    ),
    Mutant(
        "let a task take over its own presences only",
        "../owners.py",
        "Claim(weakref.ref(owner), PASSING)",
        "Claim(weakref.ref(owner), weakref.ref(owner))",
        ("tests/node/test_grace.py",),
    ),
    Mutant(
        "let presences be taken over that nobody may",
        "grace.py",
        "        if claim is not None:  # hashes",
        "        claim = claim or Claim(None, PASSING)\n        if True:  # hashes",
    ),
    Mutant(
        "let any number of presences linger",
        "grace.py",
        "if len(self) <= MAX_LINGERING:",
        "if True:",
    ),
    Mutant(
        "let lingering presences be of any size",
        "grace.py",
        "if self._size > MAX_LINGERING_SIZE:",
        "if False:",
    ),
    Mutant(
        "let one key end the lingering presences of others",
        "grace.py",
        "self._queue.first if self._shares.most == 1 else self._shares.first",
        "self._queue.first",
    ),
    Mutant(
        "end any number of presences in one tick",
        "grace.py",
        "for _ in range(MOST_AT_ONCE):",
        "while True:",
    ),
    Mutant(
        "add a second deadline to a presence that lingers",
        "grace.py",
        "        self.forget(id)\n",
        "",
    ),
    Mutant(
        "keep the deadlines of presences that linger no longer",
        "grace.py",
        "        if self.spare > len(self) + _SLACK:",
        "        if False:",
    ),
    Mutant(
        "forget the owner of a presence that lingers",
        "grace.py",
        "self._owned.add(claim.owner, id, deadline)",
        "None",
    ),
    Mutant(
        "find a lingering presence by the present hash of its owner",
        "grace.py",
        "        return self._hash\n",
        "        return hash(self._value)\n",
    ),
    Mutant(
        "take a crash of a task for its return",
        "../tasks.py",
        "return task.cancelled() or task._exception is not None",
        "return task.cancelled()",
        ("tests/node/test_grace.py",),
    ),
    Mutant(
        "retrieve the exception of a task that broke",
        "../tasks.py",
        "task._exception is not None",
        "task.exception() is not None",
        ("tests/node/test_grace.py",),
    ),
    Mutant(
        "take an exception for the normal end of a block",
        "../tracked.py",
        "self._owner, self._place, broken=True",
        "self._owner, self._place, broken=False",
        ("tests/node/test_grace.py",),
    ),
    Mutant(
        "let the old handle end the presence that was taken over",
        "../tracked.py",
        "owned.get(self._place) is self._hold",
        "id_of(owned.get(self._place, 0)) == id_of(self._hold)",
        ("tests/node/test_grace.py",),
    ),
    Mutant(
        "let the old handle end the grace of the new one",
        "../replication/grace.py",
        "kept is not None and kept.hold is hold",
        "kept is not None",
        ("tests/node/test_grace.py",),
    ),
    Mutant(
        "prefer the shorter of two lingers",
        "../endings.py",
        "driver.linger(entry, max(grace, linger), claim, hold)",
        "driver.linger(entry, min(grace, linger), claim, hold)",
        ("tests/node/test_grace.py",),
    ),
    Mutant(
        "leave lingering presences when their owner ends all",
        "../presence.py",
        "self.release(owner, linger) + self.release_lingering(owner, linger)",
        "self.release(owner, linger)",
        ("tests/node/test_grace.py",),
    ),
    Mutant(
        "end all lingering presences of an owner with one of its keys",
        "../endings.py",
        "if topic is None or (entry[TOPIC], entry[KEY]) == (topic, key)",
        "if True",
        ("tests/node/test_grace.py",),
    ),
    Mutant(
        "let every device take over",
        "../owners.py",
        "_Device(owner.device)",
        "PASSING",
        ("tests/channels/test_grace.py",),
    ),
    Mutant(
        "keep the task of a lingering presence alive",
        "../owners.py",
        "Claim(weakref.ref(owner), PASSING)",
        "Claim(owner, PASSING)",
        ("tests/node/test_grace.py",),
    ),
    Mutant(
        "let a channel that the client left linger",
        "../channels/process.py",
        'frozenset[Reason | None]({"closed", "crashed", "replaced"})',
        'frozenset[Reason | None]({"closed", "crashed", "replaced", "left"})',
        ("tests/channels/test_grace.py",),
    ),
    Mutant(
        "end the presences of a channel that crashed at once",
        "../channels/process.py",
        'frozenset[Reason | None]({"closed", "crashed", "replaced"})',
        'frozenset[Reason | None]({"closed", "replaced"})',
        ("tests/channels/test_grace.py",),
    ),
    Mutant(
        "end the presences of a channel that was replaced at once",
        "../channels/process.py",
        'frozenset[Reason | None]({"closed", "crashed", "replaced"})',
        'frozenset[Reason | None]({"closed", "crashed"})',
        ("tests/channels/test_grace.py",),
    ),
    Mutant(
        "let a client that has gone take a lingering presence over",
        "../channels/process.py",
        "        nobody = object()",
        "        nobody = self",
        ("tests/channels/test_grace.py",),
    ),
    Mutant(
        "let presences linger of a client that left before its connection ended",
        "../channels/process.py",
        "                    self._shared.presence.release_lingering(owner, 0.0)",
        "                    pass",
        ("tests/channels/test_grace.py",),
    ),
    Mutant(
        "let presences linger of a client that the server disconnected",
        "../channels/connection.py",
        "intended=code == _NORMAL",
        "intended=False",
        ("tests/channels/test_grace.py",),
    ),
    Mutant(
        "write a frame past queued ones",
        "../channels/flow/outbox.py",
        "return not self._items and not self._taking and",
        "return not self._taking and",
        ("tests/channels/test_broadcast_pass.py",),
    ),
    Mutant(
        "write a frame past the one that a source makes",
        "../channels/flow/outbox.py",
        "return not self._items and not self._taking and",
        "return not self._items and",
        ("tests/channels/test_broadcast_pass.py", *DIRECT),
    ),
    Mutant(
        "do not count frames that are written at once",
        "../channels/connection.py",
        "        outbox.count(len(frame))\n",
        "",
        ("tests/channels/test_broadcast_pass.py",),
    ),
    Mutant(
        "send a broadcast to channels that have left",
        "../channels/deliveries.py",
        "if subscriber not in present or subscriber is",
        "if subscriber is",
        ("tests/channels/test_broadcast_pass.py",),
    ),
    Mutant(
        "begin a broadcast while one on its topic is under way",
        "../channels/broadcasts.py",
        "        if topic.work is None:\n",
        "        if topic.deliveries:\n",
        ("tests/channels/test_broadcast_pass.py",),
    ),
    Mutant(
        "write a sender its own broadcast among others",
        "../channels/deliveries.py",
        "                and subscriber not in self._excluded\n",
        "",
        ("tests/channels/test_broadcast_pass.py",),
    ),
    Mutant(
        "do not filter a broadcast among others",
        "../channels/deliveries.py",
        "                and self._events.isdisjoint(subscriber.intercepts)\n",
        "",
        ("tests/channels/test_broadcast_pass.py",),
    ),
    Mutant(
        "send broadcasts to different channels together",
        "../channels/deliveries.py",
        "size > MAX_TOGETHER_SIZE or delivery.recipients is not together[0].recipients",
        "size > MAX_TOGETHER_SIZE",
        ("tests/channels/test_broadcast_pass.py",),
    ),
    Mutant(
        "write any number of bytes of broadcasts at once",
        "../channels/deliveries.py",
        "                size > MAX_TOGETHER_SIZE or delivery",
        "                delivery",
        ("tests/channels/test_broadcast_pass.py",),
    ),
    Mutant(
        "leave out broadcasts that a version cannot carry from a series",
        "../channels/deliveries.py",
        "PreparedSeries(present) if whole else None",
        "PreparedSeries(present)",
        ("tests/channels/test_broadcast_pass.py",),
    ),
    Mutant(
        "begin a pass for each broadcast of one turn",
        "../channels/broadcasts.py",
        "        asyncio.get_running_loop().call_soon(self._continue, topic, topic.work)\n",
        "        self._continue(topic, topic.work)\n",
        ("tests/channels/test_broadcast_pass.py",),
    ),
    Mutant(
        "begin no pass on a topic after a stop",
        "../channels/deliveries.py",
        "            self.work = None\n",
        "",
        ("tests/channels/test_broadcast_pass.py",),
    ),
    Mutant(
        "encode a broadcast for each client",
        "../channels/deliveries.py",
        "        if serializer not in frames:\n",
        "        if serializer:\n",
        ("tests/channels/test_broadcast_pass.py",),
    ),
    Mutant(
        "hold any number of broadcasts of members",
        "../channels/broadcasts.py",
        "            if len(self._unfinished) > MAX_UNFINISHED:\n",
        "            if not self._unfinished:\n",
        ("tests/channels/test_broadcast_pass.py",),
    ),
    Mutant(
        "do not wait for members whose clients are behind",
        "../channels/broadcasts.py",
        "        await self._window.room()\n",
        "",
        ("tests/channels/test_broadcast_window.py",),
    ),
    Mutant(
        "acknowledge broadcasts that are not sent yet",
        "../channels/broadcasts.py",
        "passed = self._number if first is None else first.number - 1",
        "passed = self._number",
        ("tests/channels/test_broadcast_pass.py",),
    ),
    Mutant(
        "forget no departed member in the window of a publisher",
        "../channels/broadcasts.py",
        "            self._window.keep(self._present())\n",
        "            pass\n",
        ("tests/channels/test_broadcast_window.py",),
    ),
    Mutant(
        "wait for members that have left, by the window",
        "../channels/broadcasts.py",
        'if member.status in ("up", "suspect")}',
        'if member.status != "self"}',
        ("tests/channels/test_broadcast_window.py",),
    ),
    Mutant(
        "watch no members for the window of a publisher",
        "../channels/broadcasts.py",
        "            driver.watch_members()  # until the end of the run\n",
        "            pass\n",
        ("tests/channels/test_broadcast_window.py",),
    ),
    Mutant(
        "let a first burst run ahead of its window",
        "../channels/broadcasts.py",
        "            if self._window.is_first_burst and self._present():\n",
        "            if not marked:\n",
        ("tests/channels/test_broadcast_window.py",),
    ),
    Mutant(
        "grow a window that is not used",
        "../channels/broadcastwindow.py",
        "if delay > LAG or 2 * used > size:",
        "if delay > LAG or used:",
        ("tests/channels/test_broadcast_window.py",),
    ),
    Mutant(
        "keep a window that is not used",
        "../channels/broadcastwindow.py",
        "            size //= 2\n",
        "            size //= 1\n",
        ("tests/channels/test_broadcast_window.py",),
    ),
    Mutant(
        "adapt a window at each acknowledgement",
        "../channels/broadcastwindow.py",
        "if number <= self._settled and delay <= 2 * LAG:",
        "if not number:",
        ("tests/channels/test_broadcast_window.py",),
    ),
    Mutant(
        "let a large window drain before it shrinks",
        "../channels/broadcastwindow.py",
        "if number <= self._settled and delay <= 2 * LAG:",
        "if number <= self._settled:",
        ("tests/channels/test_broadcast_window.py",),
    ),
    Mutant(
        "adapt a window before the new size is in use",
        "../channels/broadcastwindow.py",
        "self._settled = max(published, number + self.size)",
        "self._settled = published",
        ("tests/channels/test_broadcast_window.py",),
    ),
    Mutant(
        "grow a window whatever the delay",
        "../channels/broadcastwindow.py",
        "size = int(size * LAG / max(delay, LAG / 2))",
        "size = 2 * size",
        ("tests/channels/test_broadcast_window.py",),
    ),
    Mutant(
        "grow a window without bound",
        "../channels/broadcastwindow.py",
        "min(max(size, SMALLEST), LARGEST)",
        "max(size, SMALLEST)",
        ("tests/channels/test_broadcast_window.py",),
    ),
    Mutant(
        "shrink a window to nothing",
        "../channels/broadcastwindow.py",
        "min(max(size, SMALLEST), LARGEST)",
        "min(size, LARGEST)",
        ("tests/channels/test_broadcast_window.py",),
    ),
    Mutant(
        "believe acknowledgements of unsent broadcasts in a window",
        "../channels/broadcastwindow.py",
        "if not 0 < number <= self.published:",
        "if not number:",
        ("tests/channels/test_broadcast_window.py",),
    ),
    Mutant(
        "count repeated acknowledgements in a window",
        "../channels/broadcastwindow.py",
        "        elif number > known.acknowledged:\n",
        "        else:\n",
        ("tests/channels/test_broadcast_window.py",),
    ),
    Mutant(
        "take acknowledgements without a mark for prompt, in a window",
        "../channels/broadcastwindow.py",
        "self._marks.get(number, -math.inf)",
        "self._marks.get(number, self._clock())",
        ("tests/channels/test_broadcast_window.py",),
    ),
    Mutant(
        "keep the times of all marks of a window",
        "../channels/broadcastwindow.py",
        "        if len(self._marks) > _MAX_SENT_MARKS:\n",
        "        if not self._marks:\n",
        ("tests/channels/test_broadcast_window.py",),
    ),
    Mutant(
        "wait in each call for a stuck member, by the window",
        "../channels/broadcastwindow.py",
        "if member is not None and member.acknowledged == number:",
        "if member is None:",
        ("tests/channels/test_broadcast_window.py",),
    ),
    Mutant(
        "serve all slices of a pass in one turn",
        "../channels/flow/slicedpass.py",
        "            if not self._share.spend(RECIPIENT * SLICE):\n",
        "            if self.done:\n",
        ("tests/channels/test_broadcast_pass.py",),
    ),
    Mutant(
        "finish a pass before the clients that it left frames to",
        "../channels/flow/slicedpass.py",
        "        if self._queued:\n",
        "        if self.done:\n",
        ("tests/channels/test_slicedpass.py",),
    ),
    Mutant(
        "write the last diff to a follower that missed an earlier one",
        "../channels/presence/feed.py",
        "if changes is not None and follower.number == number - 1:",
        "if changes is not None and follower.number is not None:",
        ("tests/channels/test_presence_pass.py",),
    ),
    Mutant(
        "keep any number of frames of a presence text",
        "../channels/presence/sharedtext.py",
        "            if kept < _MAX_FRAMES and kept * len(self.text) < _MAX_KEPT:\n",
        "            if kept >= 0:\n",
        ("tests/channels/test_presence_pass.py",),
    ),
    Mutant(
        "make a frame of a presence text for each client",
        "../channels/presence/sharedtext.py",
        "                self._frames[serializer, join_ref] = found\n",
        "                pass\n",
        ("tests/channels/test_presence_pass.py",),
    ),
    Mutant(
        "cut while the last cut is being sent",
        "../channels/presence/pace.py",
        "        if self._held:\n            self._due = True\n        elif",
        "        if",
        ("tests/channels/test_presence_pass.py",),
    ),
    Mutant(
        "measure the work on cuts by elapsed time",
        "../channels/presence/pace.py",
        "        self, cut: Callable[[], None], cpu_time: Callable[[], float] = time.thread_time\n",
        "        self, cut: Callable[[], None], cpu_time: Callable[[], float] = time.monotonic\n",
        ("tests/channels/test_presence_pass.py",),
    ),
    Mutant(
        "pause for the elapsed time until a cut was sent",
        "../channels/presence/pace.py",
        "        self._pause(self.cpu_time() - self._began)\n",
        "        self._pause(self.now() - self._began)\n",
        ("tests/channels/test_presence_pass.py",),
    ),
    Mutant(
        "leave writes out of the pause after a cut",
        "../channels/presence/pace.py",
        "        self._worked += worked\n",
        "        pass\n",
        ("tests/channels/test_presence_pass.py",),
    ),
    Mutant(
        "pause before a change on a quiet topic",
        "../channels/presence/pace.py",
        "            delay = self._next_cut_at - self.now()\n",
        "            delay = PAUSE\n",
        ("tests/channels/test_presence_pass.py",),
    ),
    Mutant(
        "keep the questions of a closed link",
        "reconciler.py",
        "        self.suspicion.forget_link(link)\n",
        "",
        ("tests/replication/test_engine.py",),
    ),
    Mutant(
        "resolve instances of suspect members",
        "../services/directory.py",
        "ready = [s for s in slots if s.instance.node not in doubtful and s.rests_until <= now]",
        "ready = [s for s in slots if s.rests_until <= now]",
        ("tests/services",),
    ),
    Mutant(
        "resolve instances that rest",
        "../services/directory.py",
        "s.instance.node not in doubtful and s.rests_until <= now]",
        "s.instance.node not in doubtful]",
        ("tests/services",),
    ),
    Mutant(
        "fail when all instances are doubtful",
        "../services/directory.py",
        "pool.ready.pick(excluded) or pool.spare.pick(excluded)",
        "pool.ready.pick(excluded)",
        ("tests/services",),
    ),
    Mutant(
        "send new requests to drained instances",
        "../services/directory.py",
        "return instance.weight > 0 and (",
        "return (",
        ("tests/services",),
    ),
    Mutant(
        "keep the pools when a rest ends",
        "../services/directory.py",
        'return at < float("inf") and self._driver.now >= at',
        "return False",
        ("tests/services",),
    ),
    Mutant(
        "keep the pools when a member is suspected",
        "../services/directory.py",
        "self._version != self._availability.version() or self._has_rested()",
        "self._has_rested()",
        ("tests/services",),
    ),
    Mutant(
        "lengthen the rest with each failure during it",
        "../services/slot.py",
        "if self.rests_until > now or rest <= 0:",
        "if rest <= 0:",
        ("tests/services",),
    ),
    Mutant(
        "rest without a bound",
        "../services/slot.py",
        "min(most, rest * 2 ** min(self.failures, _MAX_DOUBLINGS))",
        "rest * 2 ** min(self.failures, _MAX_DOUBLINGS)",
        ("tests/services",),
    ),
    Mutant(
        "keep the failures after a success",
        "../services/slot.py",
        "rested, self.failures = self.failures > 0, 0",
        "rested = self.failures > 0",
        ("tests/services",),
    ),
    Mutant(
        "repeat a sent request that is not idempotent",
        "../services/attempts.py",
        "if sent and not self._idempotent:",
        "if False:",
        ("tests/services",),
    ),
    Mutant(
        "try an instance twice",
        "../services/attempts.py",
        "        self._tried |= {slot.instance.id}\n",
        "",
        ("tests/services",),
    ),
    Mutant(
        "repeat without an end",
        "../services/attempts.py",
        "if self._current is None or self._current.number >= self._most:",
        "if self._current is None:",
        ("tests/services",),
    ),
    Mutant(
        "count a use for ever",
        "../services/use.py",
        "            self._slot.uses -= 1\n",
        "            pass\n",
        ("tests/services",),
    ),
    Mutant(
        "keep the directory of a service without instances",
        "../services/resolver.py",
        "                del self._directories[name]\n",
        "                pass\n",
        ("tests/services",),
    ),
    Mutant(
        "list instances of a node that is about to stop",
        "../services/registration.py",
        "or driver.stopping:",
        ":",
        ("tests/services",),
    ),
    Mutant(
        "list an address whose check fails",
        "../services/registration.py",
        "if not (self._active and self._healthy) or",
        "if not self._active or",
        ("tests/services",),
    ),
    Mutant(
        "resolve changes of this node at the next tick",
        "../services/registration.py",
        "        driver.notify_observers()  # so",
        "        pass  # so",
        ("tests/services",),
    ),
    Mutant(
        "list entries of a wrong form",
        "../services/instance.py",
        "and isinstance(meta, dict)):",
        "and isinstance(meta, dict)) and False:",
        ("tests/services",),
    ),
    Mutant(
        "let an excluded instance catch up",
        "../services/pick.py",
        "            heapq.heappush(self._heap, (deadline, at, slot))\n        return",
        "            heapq.heappush(self._heap, (0.0, at, slot))\n        return",
        ("tests/services",),
    ),
    Mutant(
        "track on a reserved topic",
        "../values/names.py",
        "    if topic[0] == RESERVED:",
        "    if False:",
        ("tests/services/test_reserved_topics.py", "tests/node/test_pubsub.py"),
    ),
    Mutant(
        "track on a reserved topic that is ASCII",
        "../values/names.py",
        "        and topic[:1] > RESERVED\n",
        "        and topic\n",
        ("tests/values/test_names.py",),
    ),
    Mutant(
        "track an ASCII key of any length",
        "../values/names.py",
        "        and 0 < len(key) <= MAX_NAME\n    ):",
        "        and key\n    ):",
        ("tests/values/test_names.py",),
    ),
    Mutant(
        "take an outdated count of lingering presences for the current one",
        "grace.py",
        "self.ids: Collection[int] = self._lingering.keys()",
        "self.ids: Collection[int] = list(self._lingering)",
        ("tests/node/test_grace.py",),
    ),
    Mutant(
        "send the changes of a slice that was dropped",
        "exchange.py",
        "        self._dirty.pop(held, None)\n",
        "",
    ),
    Mutant(
        "take an object with a line feed for two",
        "../values/plainjson.py",
        'if lines.count("\\n") != len(texts) - 1 or _match_lines',
        "if _match_lines",
        PLAIN_TESTS,
    ),
    Mutant(
        "accept plain metas of any length",
        "../values/plainjson.py",
        "len(lines) <= limit or max(map(len, texts)) <= limit",
        "True",
        PLAIN_TESTS,
    ),
    Mutant(
        "accept an infinite number in a plain meta",
        "../values/plainjson.py",
        "[+-]?+[0-9]{1,2}+)?+",
        "[+-]?+[0-9]++)?+",
        PLAIN_TESTS,
    ),
    Mutant(
        "accept control characters in a plain meta",
        "../values/plainjson.py",
        'r"[ !#-',
        'r"[\\x00-!#-',
        PLAIN_TESTS,
    ),
    Mutant(
        "accept entries whose columns differ in length",
        "codec.py",
        'raise ValueError("the columns of entries differ in length")',
        "pass",
    ),
    Mutant(
        "accept removals whose columns differ in length",
        "codec.py",
        "if len(removed) != len(ids):",
        "if False:",
    ),
    Mutant(
        "accept a negative age",
        "codec.py",
        "(min(others) < 0 or any(map(gt, others, versions + versions + removed)))",
        "any(map(gt, others, versions + versions + removed))",
    ),
    Mutant(
        "accept two changes of one version",
        "codec.py",
        "order != sorted(set(order))",
        "order != sorted(order)",
    ),
    Mutant(
        "accept changes beyond the interval of a delta",
        "codec.py",
        "sorted(set(order)) or order[-1] > end",
        "sorted(set(order))",
    ),
    Mutant(
        "send the goodbye before observers can withdraw",
        "../driver/linkdriver.py",
        "        self.announce_stop()\n        self._end()",
        "        self._end()",
        ("tests/services/test_stopping.py",),
    ),
    Mutant(
        "let clients join a reserved topic",
        "../channels/routes.py",
        " or topic.startswith(RESERVED):",
        ":",
        ("tests/services/test_reserved_topics.py",),
    ),
    Mutant(
        "text after a JSON value is ignored",
        "../values/jsontext.py",
        "    if end != len(text):\n        raise ValueError\n",
        "",
        ("tests/values/test_jsontext.py",),
    ),
    Mutant(
        "a job begins inside another one",
        "../channels/flow/fairshare.py",
        "if turns.in_place or not self.spend(cost):",
        "if not self.spend(cost):",
        IN_PLACE,
    ),
    Mutant(
        "work in place is free of charge",
        "../channels/flow/fairshare.py",
        "if turns.in_place or not self.spend(cost):",
        "if turns.in_place:",
        IN_PLACE,
    ),
    Mutant(
        "the caller of work in place is no longer the current task",
        "../channels/flow/standingtask.py",
        "                asyncio._enter_task(loop, caller)",
        "                pass",
        IN_PLACE,
    ),
    Mutant(
        "a task that work in place has cancelled rests on",
        "../channels/flow/standingtask.py",
        "if not task.cancelling():",
        "if True:",
        IN_PLACE,
    ),
    Mutant(
        "a cancellation in place leaves the awaited future alone",
        "../channels/flow/standingtask.py",
        "if error is not None and asyncio.isfuture(wait) and wait.cancel():",
        "if False:",
        IN_PLACE,
    ),
    Mutant(
        "a cancellation at rest is a crash",
        "../channels/flow/mailbox.py",
        "if not at_rest:",
        "if True:",
        IN_PLACE,
    ),
    Mutant(
        "a job that ends in place is neither charged nor freed",
        "../channels/flow/mailbox.py",
        "            if standing.begin(job(argument)):",
        "            if standing.begin(job(argument)) and False:",
        IN_PLACE,
    ),
    Mutant(
        "a job that waits or fails in place is neither charged nor freed",
        "../channels/flow/mailbox.py",
        "                await standing\n            finally:\n                self._account()\n",
        "                await standing\n            finally:\n                pass\n",
        IN_PLACE,
    ),
    Mutant(
        "the time of one job is charged to the next one too",
        "../channels/flow/mailbox.py",
        "began, self._began = self._began, None",
        "began = self._began",
        IN_PLACE,
    ),
    Mutant(
        "a task that a job left cancelled runs the next job",
        "../channels/flow/mailbox.py",
        "                self._account()\n            if standing.task.cancelling():\n",
        "                self._account()\n            if False:\n",
        IN_PLACE,
    ),
    Mutant(
        "a failed send cancels the reader inside its own call",
        "../channels/carriers/websocket.py",
        "self._connection.loop.call_soon(self._interrupt)",
        "self._interrupt()",
        IN_PLACE,
    ),
    Mutant(
        "a channel with room pauses reading",
        "../channels/connection.py",
        "while full and not full[-1].full:",
        "while False:",
        IN_PLACE,
    ),
    Mutant(
        "a full channel is not noted",
        "../channels/process.py",
        "        if self.full:\n            self.connection.note_full(self)",
        "        pass",
        IN_PLACE,
    ),
    Mutant(
        "consume a frame within a fragmented message",
        "../channels/uvicorn.py",
        "and conn.current_size is None",
        "and True",
        PROTOCOL,
    ),
    Mutant(
        "consume a frame above the limit",
        "../channels/uvicorn.py",
        "and length <= self._limit",
        "and True",
        PROTOCOL,
    ),
    Mutant(
        "consume an unmasked frame",
        "../channels/uvicorn.py",
        "and second > 0x7F",
        "and True",
        PROTOCOL,
    ),
    Mutant(
        "consume frames behind a close",
        "../channels/uvicorn.py",
        "if self.transport.is_closing():\n                return  # that",
        "if False:\n                return  # that",
        PROTOCOL,
    ),
    Mutant(
        "take bytes behind the request for the beginning of a frame",
        "../channels/uvicorn.py",
        "self.handshake_initiated and ends_here and",
        "self.handshake_initiated and",
        PROTOCOL,
    ),
    Mutant(
        "parse any number of small frames in one turn",
        "../channels/uvicorn.py",
        "if not self._share.spend(WORK):",
        "if False:",
        PROTOCOL,
    ),
    Mutant(
        "parse all bytes without known boundaries in one turn",
        "../channels/uvicorn.py",
        "self._tracked = False\n            return min(at + _BITE, size)",
        "self._tracked = False\n            return size",
        PROTOCOL,
    ),
    Mutant(
        "read on for the application while bytes are held",
        "../channels/uvicorn.py",
        "self.transport.pause_reading()  # which that has ended",
        "pass",
        PROTOCOL,
    ),
    Mutant(
        "answer pings without room",
        "../channels/uvicorn.py",
        "if not self.writable.is_set():\n            self._pong",
        "if False:\n            self._pong",
        PROTOCOL,
    ),
    Mutant(
        "hold the socket of a client that does not read after its end",
        "../channels/uvicorn.py",
        "            self._protocol.abort_later()\n",
        "",
        PROTOCOL,
    ),
    Mutant(
        "let an invalid frame before the accept fail an assertion",
        "../channels/uvicorn.py",
        "if self.handshake_complete:\n            super().handle",
        "if True:\n            super().handle",
        PROTOCOL,
    ),
    Mutant(
        "write to a socket that has failed",
        "../channels/uvicorn.py",
        " or self._is_closing():",
        ":",
        PROTOCOL,
    ),
    Mutant(
        "let the failure of one transport end a broadcast",
        "../channels/connection.py",
        "            self._give_up()\n        else:",
        "            raise\n        else:",
        ("tests/channels/test_broadcast_pass.py",),
    ),
    Mutant(
        "let compressed messages refer to those of others",
        "../channels/wire/wsframes.py",
        "zlib.Z_FULL_FLUSH",
        "zlib.Z_SYNC_FLUSH",
        PROTOCOL,
    ),
    Mutant(
        "keep a client that has gone until its handler ends",
        "../channels/carriers/direct.py",
        "wakes nobody, see `Connection.wait_room`.\n            self._continue()",
        "wakes nobody, see `Connection.wait_room`.\n            pass",
        ("tests/channels/test_websocket_conformance.py",),
    ),
    Mutant(
        "drop held frames at a disconnect",
        "../channels/carriers/direct.py",
        "if not self._held or self._connection.full:",
        "if True:",
        DIRECT,
    ),
    Mutant(
        "dispatch frames without the client's share",
        "../channels/carriers/direct.py",
        "or not connection.share.spend(self._cost(data))",
        "or False",
        ("tests/channels/test_fairshare.py",),
    ),
    Mutant(
        "forget that a cast follows singles",
        "../bus/buscore.py",
        "message = Cast(self._log.head + 1, tuple(self._needs.items()), excluded, body)",
        "message = Cast(self._log.head + 1, (), excluded, body)",
        VIRTUAL_LINKS,
    ),
    Mutant(
        "forget that a single follows casts",
        "../bus/buscore.py",
        "message = Single(link.life, link.key, number, self._log.head, body)",
        "message = Single(link.life, link.key, number, 0 if number > 1 else self._log.head, body)",
        VIRTUAL_LINKS,
    ),
    Mutant(
        "deliver a cast to the links that it leaves out",
        "../bus/buscore.py",
        "body = None if link.key in excluded else message.body",
        "body = message.body",
        VIRTUAL_LINKS,
    ),
    Mutant(
        "deliver a repeated single again",
        "../bus/buswindows.py",
        "if number > self.received.single and number not in self._singles and self._fits(body):",
        "if self._fits(body):",
        VIRTUAL_LINKS,
    ),
    Mutant(
        "deliver casts of the time before a link",
        "../bus/buswindows.py",
        "for number in [number for number in self._casts if number <= after]:",
        "for number in []:",
        VIRTUAL_LINKS,
    ),
    Mutant(
        "never ask for a lost frame again",
        "../bus/virtuallink.py",
        "self.ask_at, self._pause = now + self._pause, 2 * self._pause",
        "self.ask_at = float('inf')",
        VIRTUAL_LINKS,
    ),
    Mutant(
        "keep a link with a lost frame open for ever",
        "../bus/buscore.py",
        "        if link.hopeless(now):",
        "        if False:",
        VIRTUAL_LINKS,
    ),
    Mutant(
        "believe a wrong tag",
        "../bus/busmessages.py",
        "if not hmac.compare_digest(self._tag(view[:end]), view[end:]):",
        "if False:",
        VIRTUAL_LINKS,
    ),
    Mutant(
        "count refusals while the others are returning to the bus",
        "../bus/buscore.py",
        "elif isinstance(probe, bytes) and now >= self._settled_at:",
        "elif isinstance(probe, bytes):",
        VIRTUAL_LINKS,
    ),
    Mutant(
        "hold no link while the bus is away",
        "../bus/buscore.py",
        "self._hold([link for link in self._links.values() if not link.held], held=True)",
        "pass",
        VIRTUAL_LINKS,
    ),
    Mutant(
        "hold a dead peer for ever after a return",
        "../bus/buscore.py",
        "            self._hold([link for link in self._links.values() if link.held], held=False)",
        "            pass",
        VIRTUAL_LINKS,
    ),
    Mutant(
        "announce no loss",
        "../bus/buscore.py",
        "        self._emit(self._all, Lost(life))",
        "        pass",
        VIRTUAL_LINKS,
    ),
    Mutant(
        "let every announcement open another link",
        "../bus/buscore.py",
        "if life not in self._by_life and not greeted:",
        "if True:",
        VIRTUAL_LINKS,
    ),
    Mutant(
        "keep all casts for a peer that acknowledges nothing",
        "../bus/buswindows.py",
        "while self.total - self._before_oldest() > MAX_CASTS_KEPT and len(self._kept) > 1:",
        "while False:",
        VIRTUAL_LINKS,
    ),
    Mutant(
        "never drop an acknowledged cast",
        "../bus/buscore.py",
        "self._log.trim(min(acknowledged, default=self._log.head))",
        "pass",
        VIRTUAL_LINKS,
    ),
    Mutant(
        "wait for ever for a lost report",
        "../bus/buscore.py",
        "            self._report(self._links[id], reply=True)\n        if _PAST",
        "            pass\n        if _PAST",
        VIRTUAL_LINKS,
    ),
    Mutant(
        "let a link that the peer has given up stay open",
        "../bus/buscore.py",
        "for link in self._by_life.get(life, {}).values() if fresh else ():",
        "for link in ():",
        VIRTUAL_LINKS,
    ),
    Mutant(
        "deliver casts over a link that the peer has given up while the bus was away",
        "../bus/buscore.py",
        "            link.confirmed = False  # the peer may give the link up meanwhile",
        "            pass",
        VIRTUAL_LINKS,
    ),
    Mutant(
        "deliver casts over a link beside a newer one that replaces it",
        "../bus/buscore.py",
        "            older.confirmed = False  # the peer may have dialled as it lost that one",
        "            pass",
        VIRTUAL_LINKS,
    ),
    Mutant(
        "fail a handshake whose messages arrive twice",
        "../bus/virtuallink.py",
        "        if frames == self._last:",
        "        if False:",
        VIRTUAL_LINKS,
    ),
    Mutant(
        "forget that a report confirms a link",
        "../bus/buscore.py",
        "        link.confirmed = True\n        if not link.sending",
        "        if not link.sending",
        VIRTUAL_LINKS,
    ),
    Mutant(
        "set a timer of a virtual link again and again that fires a moment early",
        "../bus/buscore.py",
        "        now += RESOLUTION",
        "        now += 0.0",
        VIRTUAL_LINKS,
    ),
    Mutant(
        "let the neighbours of the ring go without probes",
        "../bus/buscore.py",
        "            self._probe(self._ring.neighbour)\n\n    def dial",
        "            pass\n\n    def dial",
        BUS_TRIALS,
    ),
    Mutant(
        "count refusals after a return, on the simulated bus",
        "../bus/buscore.py",
        "self._settled_at = now + RETURN_GRACE if self._was_away else _PAST",
        "self._settled_at = _PAST",
        BUS_TRIALS,
    ),
    Mutant(
        "announce a node once and never again",
        "../bus/buscore.py",
        "self._announce_at = now + ANNOUNCE_INTERVAL * (0.75 + jitter / 2)",
        "self._announce_at = _NEVER + jitter",
        BUS_TRIALS,
    ),
    Mutant(
        "publish a heartbeat once for each link",
        "../bus/buscore.py",
        "if len(named) > 1 and excluded <= min(len(named), MAX_EXCLUDED):",
        "if False:",
        BUS_TRIALS,
    ),
    Mutant(
        "let a lost cast stay lost",
        "../bus/buscore.py",
        "        if report.resend:",
        "        if False:",
        BUS_TRIALS,
    ),
    Mutant(
        "keep a link with a dead process on the bus",
        "../bus/buscore.py",
        "            self._lose(probe, now)",
        "            pass",
        BUS_TRIALS,
    ),
    Mutant(
        "keep the last event with a resting channel",
        "../channels/flow/mailbox.py",
        "                del job  # a resting task keeps none",
        "                pass",
        IDLE,
    ),
    Mutant(
        "keep the first receive with a direct connection",
        "../channels/carriers/direct.py",
        "        del ahead  #",
        "        #",
        IDLE,
    ),
    Mutant(
        "keep the first receive with a connection",
        "../channels/carriers/websocket.py",
        "        del ahead  #",
        "        #",
        IDLE,
    ),
    Mutant(
        "keep a deque for held frames",
        "../channels/carriers/direct.py",
        "        if not held:\n            self._held = None\n",
        "",
        IDLE,
    ),
    Mutant(
        "keep the headers of the request in the parser",
        "../channels/uvicorn.py",
        "        self.request.headers.clear()\n",
        "",
        IDLE,
    ),
    Mutant(
        "wake nobody if one that waits is cancelled",
        "../channels/flow/flag.py",
        "await asyncio.wait([self._change])",
        "await self._change",
        IDLE,
    ),
]


class Verdict(NamedTuple):
    """What saw that a mutant is wrong; None for what did not."""

    trial: str | None
    test: str | None


def mutate(project: Path, mutant: Mutant) -> None:
    """Write a mutant into a copy of the project."""
    path = project / CORE / mutant.file
    source = path.read_text()
    path.write_text(source.replace(mutant.text, mutant.instead, 1))


def try_out(mutant: Mutant) -> Verdict:
    """Break a copy of the project, and see who notices."""
    with tempfile.TemporaryDirectory(prefix="adsum-mutant-") as folder:
        project = Path(folder)
        for name in ("src", "tests", "pyproject.toml"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, project / name)
        mutate(project, mutant)
        outside = mutant.file.startswith("..")
        trial = None if outside else try_trials(project)
        return Verdict(trial, try_tests(project, mutant.tests))


def try_trials(project: Path) -> str | None:
    """The first seed that fails, and the law that it breaks."""
    return run(project, "-c", TRIALS) or None


def try_tests(project: Path, tests: tuple[str, ...]) -> str | None:
    """The first test that fails."""
    select = ["-m", "not processes", "--ignore", "tests/replication/test_trials.py"]
    output = run(project, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests, *select)
    found = re.search(r"^(?:FAILED|ERROR) \S*?(\w+\.py::\w+)", output, re.MULTILINE)
    if found:
        return found[1]
    if output == HANGS:
        return HANGS
    return None if re.search(r"^\d+ passed", output, re.MULTILINE) else "(the tests do not run)"


def run(project: Path, *arguments: str) -> str:
    """What Python prints in a copy of the project."""
    environment = {**os.environ, "PYTHONPATH": str(project / "src")}
    try:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        ).stdout.strip()
    except subprocess.TimeoutExpired:
        return HANGS


def main() -> int:
    words = sys.argv[1:]
    mutants = [m for m in MUTANTS if not words or any(word in m.what for word in words)]
    began, survivors = time.monotonic(), 0
    print(f"{'mutant':<50} {'the first test that fails':<64} the first trial that fails")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for mutant, (trial, test) in zip(mutants, pool.map(try_out, mutants), strict=True):
            survivors += trial is None and test is None
            told = trial or f"none of {SEEDS}"
            print(f"{mutant.what:<50} {test or 'none':<64} {told[:110]}", flush=True)
    caught = len(mutants) - survivors
    seconds = time.monotonic() - began
    print(f"{caught} of {len(mutants)} mutants were caught, in {seconds:.0f} s")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
