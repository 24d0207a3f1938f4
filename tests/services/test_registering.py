"""Registering: the owner alone lists, changes and withdraws its entry, by its own health."""

import asyncio
import logging
from functools import partial

import pytest

import adsum
from adsum.testing import MakeCluster
from tests.support.nodes import run
from tests.support.waiting import DEADLINE, until

from .crew import NAME, Crew


def alone() -> tuple[adsum.Node, adsum.Services]:
    node = adsum.Node(siblings=False)
    return node, adsum.Services(node)


def test_registration_ends_with_its_block_or_withdraw(cluster: MakeCluster) -> None:
    crew = Crew(cluster(2))
    with crew[0].register(NAME, "one:80") as registration:
        assert registration.active
        assert registration.instance == crew.at(0, "one:80")
        assert "listed" in repr(registration)
        crew.cluster.settle()
        assert crew.listed(1) == ["one:80"]
    assert not registration.active
    assert registration.instance is None
    assert "ended" in repr(registration)
    other = crew[0].register(NAME, "two:80")
    other.withdraw()
    other.withdraw()
    crew.cluster.settle()
    assert crew.listed(0) == crew.listed(1) == []


def test_registration_outlives_its_task_and_its_handle() -> None:
    async def main() -> None:
        node, services = alone()

        async def register() -> None:
            services.register(NAME, "one:80")

        async with node:
            await asyncio.create_task(register())
            await asyncio.sleep(0)
            assert len(services.instances(NAME)) == 1
        assert not node.running

    run(main())


def test_same_address_of_a_node_is_registered_once(cluster: MakeCluster) -> None:
    crew = Crew(cluster(2))
    registration = crew[0].register(NAME, "one:80")
    with pytest.raises(adsum.AlreadyTrackedError, match="'one:80' is registered as 'users'"):
        crew[0].register(NAME, "one:80")
    crew[0].register("mail", "one:80")
    crew[1].register(NAME, "one:80")  # another process may share the port
    crew.cluster.settle()
    assert crew.listed(0) == ["one:80", "one:80"]
    registration.withdraw()
    crew[0].register(NAME, "one:80")
    assert crew.listed(0) == ["one:80", "one:80"]


def test_update_replaces_parts_in_place(cluster: MakeCluster) -> None:
    crew = Crew(cluster(2))
    registration = crew[0].register(NAME, "one:80", tags=["eu"], weight=2, meta={"v": 1})
    before = crew.at(0, "one:80")
    crew.cluster.settle()
    registration.update(weight=0)
    registration.update(meta={"v": 2})
    crew.cluster.settle()
    after = crew.at(1, "one:80")
    assert (after.tags, after.weight, after.meta) == (("eu",), 0.0, {"v": 2})
    assert after.id == before.id
    registration.update(tags=[])
    assert crew.at(0, "one:80").tags == ()


def test_wrong_update_changes_nothing(cluster: MakeCluster) -> None:
    crew = Crew(cluster(1))
    registration = crew[0].register(NAME, "one:80", meta={"v": 1})
    with pytest.raises(adsum.ConfigurationError, match="weight=-1"):
        registration.update(weight=-1, meta={"v": 2})
    with pytest.raises(TypeError, match="meta"):
        registration.update(weight=5, meta={"v": object()})
    registration.update()
    assert (crew.at(0, "one:80").weight, crew.at(0, "one:80").meta) == (1.0, {"v": 1})


class Health:
    """A check whose result a test sets: a bool, an error, or None for no result."""

    def __init__(self, result: bool | BaseException | None) -> None:
        self.result = result
        self.calls = 0

    async def __call__(self) -> bool:
        self.calls += 1
        result = self.result
        if result is None:
            await asyncio.Event().wait()
        if isinstance(result, BaseException):
            raise result
        return bool(result)


def listed(services: adsum.Services, count: int) -> bool:
    return len(services.instances(NAME)) == count


@pytest.mark.parametrize(
    "failure", [False, None, ConnectionError("down"), asyncio.CancelledError()]
)
def test_failing_check_withdraws_until_it_succeeds(
    failure: bool | BaseException | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        node, services = alone()
        health = Health(True)
        async with (
            node,
            services.register(NAME, "one:80", check=health, every=0.01) as registration,
        ):
            assert listed(services, 1)
            health.result = failure
            await until(partial(listed, services, 0), "it is withdrawn")
            assert registration.active
            assert "withdrawn" in repr(registration)
            registration.update(meta={"v": 2})
            assert listed(services, 0)
            health.result = True
            await until(partial(listed, services, 1), "it is listed again")
            assert services.resolve(NAME).meta == {"v": 2}
        calls = health.calls
        await asyncio.sleep(0)
        assert health.calls == calls

    caplog.set_level(logging.INFO, "adsum.services")
    run(main())
    texts = [record.message for record in caplog.records]
    assert len(texts) == 2, texts  # once for each change, whatever the number of checks
    assert "'one:80' as 'users' is withdrawn until its check succeeds" in texts[0]
    assert "listed again" in texts[1]


def test_late_check_withdraws_while_it_still_cleans_up() -> None:
    """As a check that closes its connection to a database that does not answer."""

    async def main() -> None:
        node, services = alone()
        cleaned, calls = asyncio.Event(), list[int]()

        async def check() -> None:
            calls.append(len(calls))
            if len(calls) == 2:
                try:
                    await asyncio.Event().wait()
                finally:
                    await cleaned.wait()

        async with node, services.register(NAME, "one:80", check=check, every=0.01):
            await until(partial(listed, services, 0), "it is withdrawn")
            assert len(calls) == 2
            cleaned.set()
            await until(partial(listed, services, 1), "it is listed again")

    run(main())


def test_address_is_listed_after_the_first_success_of_its_check() -> None:
    async def main() -> None:
        node, services = alone()
        health = Health(False)
        async with node:
            registration = services.register(NAME, "one:80", check=health, every=0.01)
            assert listed(services, 0)
            async with registration:
                assert health.calls == 1
                assert listed(services, 0)
                health.result = True
                await until(partial(listed, services, 1))
            assert listed(services, 0)

    run(main())


def test_node_that_stops_ends_the_wait_for_the_first_check() -> None:
    async def main() -> None:
        node, services = alone()
        await node.start()
        registration = services.register(NAME, "one:80", check=Health(None), every=DEADLINE)

        async def enter() -> bool:
            async with registration:
                return registration.active

        task = asyncio.create_task(enter())
        await asyncio.sleep(0)
        await node.stop()
        assert not await task

    run(main())


def test_cancelled_entry_withdraws() -> None:
    async def main() -> None:
        node, services = alone()
        async with node:
            registration = services.register(NAME, "one:80", check=Health(None), every=DEADLINE)

            async def enter() -> None:
                async with registration:
                    raise AssertionError("never")

            task = asyncio.create_task(enter())
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert not registration.active

    run(main())


def test_check_of_a_stopping_node_does_not_list_it_again() -> None:
    async def main() -> None:
        node, services = alone()
        health = Health(True)
        async with node, services.register(NAME, "one:80", check=health, every=0.001):
            node.begin_stop()
            await until(partial(listed, services, 0))
            calls = health.calls
            await until(lambda: health.calls > calls + 1)
            assert listed(services, 0)

    run(main())
