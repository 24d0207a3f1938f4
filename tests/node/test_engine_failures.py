"""An engine that raises where none should: the node logs it, and its clock goes on."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

import adsum
from adsum.driver import failurelog
from adsum.replication.engine import Engine
from tests.support.nodes import run
from tests.support.waiting import until

HEARTBEAT = 0.05
SETTINGS: dict[str, Any] = {
    "siblings": False,
    "heartbeat_interval": HEARTBEAT,
    "down_after": 3.0,
    "link_grace": 0.2,
}


class Fault:
    """Stands for a method of the engine, and raises while it is told to."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.method = method
        self.__name__ = method.__name__
        self.raises = True
        self.calls = 0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        if self.raises:
            raise ValueError("x" * 1_000_000)
        return self.method(*arguments, **options)


def inject(node: adsum.Node, name: str) -> Fault:
    engine = node.driver.engine
    fault = Fault(getattr(engine, name))
    setattr(engine, name, fault)
    return fault


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "failed: " in r.getMessage()]


@pytest.mark.parametrize("name", ["tick", "take_effects", "take_changes"])
def test_failing_engine_step_is_logged_once_and_retried_after_a_heartbeat(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with adsum.Node(**SETTINGS) as node:
            loop, fault = asyncio.get_running_loop(), inject(node, name)
            began = loop.time()
            await until(lambda: fault.calls >= 6)
            took = loop.time() - began
            assert took > 4 * HEARTBEAT / 2  # each attempt waits for a heartbeat
            assert len(failures(caplog)) == 1
            fault.raises = False
            beats = node.driver.engine._heartbeats.counter
            await until(lambda: node.driver.engine._heartbeats.counter > beats + 2)

    with caplog.at_level(logging.ERROR, logger="adsum"):
        run(main())
    [line] = failures(caplog)
    assert name in line or "_settle" in line
    assert len(line) < 5000


def test_timer_is_set_when_the_next_deadline_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wake_at: Any = Engine.wake_at

    def broken(engine: Engine) -> float:
        raise RuntimeError("no deadline")

    async def main() -> None:
        async with adsum.Node(**SETTINGS) as node:
            with monkeypatch.context() as patch:
                patch.setattr(Engine, "wake_at", property(broken))
                beats = node.driver.engine._heartbeats.counter
                await until(lambda: node.driver.engine._heartbeats.counter > beats + 2)
            assert Engine.wake_at is wake_at

    run(main())


@pytest.mark.parametrize("name", ["link_up", "link_down", "receive", "link_writable"])
def test_clock_goes_on_after_a_link_event_that_raises(name: str) -> None:
    async def main() -> None:
        tcp = {**SETTINGS, "listen": "127.0.0.1:0", "cluster": "faults"}
        async with adsum.Node(**tcp) as one, adsum.Node(**tcp, peers=one.address) as two:
            await until(lambda: one.stats()["links"] == two.stats()["links"] == 1)
            fault = inject(one, name)
            if name == "link_writable":
                [link] = one.driver._links  # type: ignore[attr-defined]  # of sockets
                link = one.driver._links[link]  # type: ignore[attr-defined]  # of sockets
                one.driver.link_writable(link, True)  # type: ignore[attr-defined]  # of sockets
            elif name != "receive":
                engine = two.driver.engine
                for link in [*engine._links]:
                    engine._reconciler.close_link(link, "a test")
                two.driver.wake()
            await until(lambda: fault.calls)
            fault.raises = False
            beats = one.driver.engine._heartbeats.counter
            await until(lambda: one.driver.engine._heartbeats.counter > beats + 2)
            presence = adsum.Presence(one)
            adsum.Presence(two).track("room", "ann", owner=None)
            if name != "link_down":  # after that one, the engine has a link that is gone
                await until(lambda: presence.count("room") == 1)

    run(main())


def test_failures_of_an_observer_are_logged_once_in_an_interval(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with adsum.Node(siblings=False) as node:
            presence = adsum.Presence(node)
            watch = presence.watch("room")
            monkeypatch.setattr(presence.observer, "changed", Fault(presence.observer.changed))
            for interval in (1000.0, 0.0):
                monkeypatch.setattr(failurelog, "FAILURE_LOG_INTERVAL", interval)
                node.driver._failures._silent_until.clear()
                caplog.clear()
                for _ in range(5):
                    presence.track("room", "ann").untrack()
                    node.driver.notify_observers()
                assert len(failures(caplog)) == (1 if interval else 5)
            watch.close()

    run(main())
