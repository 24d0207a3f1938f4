"""Processes that do not run for a while: stopped, or blocked by their own application."""

import signal
import time
from collections.abc import Callable

import pytest

from tests.support.measurements import Measured

from .carriers import over
from .cluster import Cluster, flickers, nobody_leaves, when_joined, when_left

pytestmark = pytest.mark.processes


@over("sockets", "nats")
def test_sigstop_hides_the_process_and_sigcont_hides_no_peer(
    cluster: Callable[..., Cluster], measured: Measured
) -> None:
    nodes = cluster()
    victim, *witnesses = nodes.start("stopped", "ann", "bob")
    nodes.linked()
    stopped = victim.signal(signal.SIGSTOP)
    hidden = when_left(witnesses, "stopped", stopped)
    assert flickers(*witnesses, but=["stopped"]) == []
    continued = victim.signal(signal.SIGCONT)
    back = when_joined(witnesses, "stopped", continued)
    nodes.agree()
    nobody_leaves(1.5, *witnesses, but=["stopped"])
    assert flickers(victim) == []
    assert min(hidden) > nodes.silence
    assert max(hidden) < 1.5 * nodes.down_after
    assert max(back) < nodes.silence
    measured(fault="SIGSTOP", sees="its presences leave", seconds=hidden)
    measured(fault="SIGCONT", sees="they join again", seconds=back)


@over("sockets", "redis")
def test_blocked_loop_hides_the_process_and_resume_hides_no_peer(
    cluster: Callable[..., Cluster], measured: Measured
) -> None:
    nodes = cluster()
    victim, *witnesses = nodes.start("blocked", "ann", "bob")
    nodes.linked()
    began = time.monotonic()
    block = 2 * nodes.down_after - 2.0
    victim.ask("block", block)
    ended = time.monotonic()
    hidden = when_left(witnesses, "blocked", began)
    back = when_joined(witnesses, "blocked", began + max(hidden))
    nodes.agree()
    nobody_leaves(1.5, *witnesses, but=["blocked"])
    assert flickers(victim) == []
    assert min(hidden) > nodes.silence
    assert max(hidden) < 1.5 * nodes.down_after
    back = [began + max(hidden) + seconds - ended for seconds in back]
    assert max(back) < nodes.silence
    measured(fault=f"loop blocked for {block:g} s", sees="its presences leave", seconds=hidden)
    measured(fault=f"loop blocked for {block:g} s, its end", sees="they join again", seconds=back)
