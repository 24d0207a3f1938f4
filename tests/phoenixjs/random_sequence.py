"""Random sequences of what happens to a site and its clients, and what must be shown after them.

What happens is chosen from a seed and from what is expected, never from what is observed: the same
seed gives the same sequence. How its steps fall together in time is up to the machine.
"""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from tests.support.waiting import until

from .site_cluster import SiteCluster

CLIENTS, USERS = 8, 4
#: Seconds between two steps, at most, one of these at a time: now they fall together, now not.
_PAUSES = (0.0, 0.02, 0.1)
#: Seconds that what is sent to clients takes, one of these at a time.
_DELAYS = (0.0, 0.0, 0.02)
#: The part of the clients that poll, and that look on without being seen.
_POLLING, _OBSERVING = 0.2, 0.15

Step = Callable[[], Awaitable[object]]


class Person:
    """What is expected of one client.

    Attributes:
        meta: What it shows of itself; None for an observer.
    """

    def __init__(self, number: int, rng: Random) -> None:
        self.name = f"c{number}"
        self.user = f"user{number % USERS}"
        self.transport = "longpoll" if rng.random() < _POLLING else "websocket"
        self.connected = True
        self.joined = False
        observes = rng.random() < _OBSERVING
        self.meta: dict[str, Any] | None = None if observes else {"device": self.name, "n": 0}

    @property
    def present(self) -> bool:
        return self.connected and self.joined and self.meta is not None


class Sequence:
    """One sequence, in a room of its own.

    Args:
        site: Where it happens; all nodes live, and nobody is connected.
        seed: Decides what happens.
        cuts: Whether links between nodes are cut, too.
    """

    def __init__(self, site: SiteCluster, seed: int, *, cuts: bool) -> None:
        self.topic = f"room:{seed}"
        self._site = site
        self._rng = Random(seed)
        self._cuts = cuts
        self._people = [Person(number, self._rng) for number in range(CLIENTS)]
        self._updates = 0
        self._pause = 0.0
        self._trace: list[str] = []

    async def run(self, steps: int, rounds: int) -> None:
        """Let so many steps happen, and then settle; as often as said.

        Raises:
            AssertionError: Somebody was shown what is not so, or told of no real change.
        """
        try:
            for person in self._people:
                await self._connect(person)
                await self._join(person)
            for _ in range(rounds):
                self._pause = self._rng.choice(_PAUSES)
                self._site.balancer.delay = self._rng.choice(_DELAYS)
                for _ in range(steps):
                    await self._next_step()
                await self._settle()
            if not self._cuts:
                self._check_that_nobody_came_back()
        except Exception as error:
            story = "\n".join(self._trace)
            raise AssertionError(f"{story}\n{self.topic}: {error}") from error

    def expected(self) -> dict[str, list[Any]]:
        """Who has to be shown, once everything has settled."""
        expected: dict[str, list[Any]] = {}
        for person in self._people:
            if person.present:
                expected.setdefault(person.user, []).append(person.meta)
        return expected

    async def _next_step(self) -> None:
        weights = self._possible()
        step = self._rng.choices(list(weights), [*weights.values()])[0]
        await step()
        # Not to wait for anything: whether the next step finds this one done is left to chance.
        await asyncio.sleep(self._rng.uniform(0, self._pause))

    def _possible(self) -> dict[Step, float]:
        """What may happen now, and how likely each is."""
        alive, dead = len(self._site.alive), len(self._site.servers) - len(self._site.alive)
        steps: dict[Step, float] = {
            self._update_somebody: 5,
            self._update_many: 2,
            self._crash_somebody: 2,
            self._drop_somebody: 2,
            self._leave_or_join: 3,
            self._leave_and_join_at_once: 1.5,
            self._disconnect_or_reconnect: 2,
        }
        if alive > 1:
            steps[self._kill] = 0.7
        if dead:
            steps[self._restart] = 1.5
        if self._cuts and not self._site.links.cut and alive > 1:
            steps[self._split] = 1.5
        if self._site.links.cut:
            steps[self._heal] = 1.5
        return steps

    async def _settle(self) -> None:
        self._note("settle")
        self._site.links.heal()
        away = {person.name for person in self._people if not person.connected}
        await self._site.agree(self.topic, self.expected(), away)

    def _check_that_nobody_came_back(self) -> None:
        """Without cuts a ref that has left is gone for good, so it joins once for each client."""
        for (client, _), ledger in self._site.seen.items():
            back = ledger.came_back()
            assert not back, f"{client} was told twice that these have joined: {back}"

    # What clients do.

    async def _update_somebody(self) -> None:
        person = self._somebody()
        if person.joined and person.meta is not None:
            self._updates += 1
            person.meta = {**person.meta, "n": self._updates}
            self._note(f"{person.name} updates to {self._updates}")
            await self._tell(person, "update", meta=person.meta, waits=False)

    async def _update_many(self) -> None:
        for _ in range(self._rng.randrange(3, 12)):
            await self._update_somebody()

    async def _crash_somebody(self) -> None:
        person = self._somebody()
        if person.joined:
            self._note(f"{person.name} crashes its channel")
            await self._tell(person, "push", event="crash", payload={}, waits=False)

    async def _drop_somebody(self) -> None:
        person = self._somebody()
        self._note(f"the connection of {person.name} breaks")
        self._site.balancer.drop(person.name)

    async def _leave_or_join(self) -> None:
        person = self._somebody()
        if person.joined:
            await self._leave(person)
        else:
            await self._join(person)

    async def _leave_and_join_at_once(self) -> None:
        person = self._somebody()
        if person.joined:
            await self._leave(person)
            await self._join(person)

    async def _disconnect_or_reconnect(self) -> None:
        person = self._somebody()
        person.connected = not person.connected
        command = "reconnect" if person.connected else "disconnect"
        self._note(f"{person.name} {command}s")
        await self._site.clients.ask(command, client=person.name)

    async def _connect(self, person: Person) -> None:
        await self._site.connect(person.name, person.user, transport=person.transport)

    async def _join(self, person: Person) -> None:
        self._note(f"{person.name} joins")
        person.joined = True
        await self._site.join(person.name, self.topic, person.meta, waits=False)

    async def _leave(self, person: Person) -> None:
        self._note(f"{person.name} leaves")
        person.joined = False
        await self._tell(person, "leave", waits=False)

    def _somebody(self) -> Person:
        return self._rng.choice(self._people)

    async def _tell(self, person: Person, command: str, **how: Any) -> None:
        await self._site.clients.ask(command, client=person.name, topic=self.topic, **how)

    # What happens to nodes.

    async def _kill(self) -> None:
        name = self._rng.choice(self._site.alive)
        self._note(f"{name} is killed")
        await self._site.kill(name)

    async def _restart(self) -> None:
        name = self._rng.choice([n for n in self._site.servers if n not in self._site.alive])
        self._note(f"{name} is started again")
        await self._site.start(name)

    async def _split(self) -> None:
        """Cut one node off; half of the time until the others have noticed."""
        alone = self._rng.choice(self._site.alive)
        noticed = self._rng.random() < 0.5
        self._note(f"{alone} is cut off{' and given up' if noticed else ''}")
        self._site.links.split([alone])
        if noticed:
            await until(self._cut_is_noticed, "a cut is noticed")

    async def _cut_is_noticed(self) -> bool:
        answers = [await self._site.servers[name].get("members") for name in self._site.alive]
        return all(answer is not None and "down" in answer.values() for answer in answers)

    async def _heal(self) -> None:
        self._note("the cut is healed")
        self._site.links.heal()

    def _note(self, what: str) -> None:
        self._trace.append(what)
