"""What the authentication of frames costs: the same work over TCP, with and without a secret."""

import asyncio
import os
import secrets
from functools import partial

from adsum.transport.frame_mac import FrameMac
from benchmarks import wire
from benchmarks.figures import Figure, percentile
from benchmarks.host import Host
from benchmarks.measure import seconds
from benchmarks.plan import Plan
from benchmarks.processes import workers

#: By the way that a link is: the secret of its ends.
_WAYS = {"without": None, "with": secrets.token_urlsafe()}
#: Bytes of a frame whose tag is timed.
_FRAMES = (100, 1_024, 16 * 1_024, 256 * 1_024)
#: Characters of a message of a burst: about those of a lone change, and of a frame of a delta.
_SIZES = (100, 16 * 1_024)
_INTERVAL = 0.005

_Samples = dict[tuple[str, str], list[float]]


def run(plan: Plan) -> list[Figure]:
    """The tag alone, and bytes, delays, bursts and catch-ups of both kinds of links in turn."""
    samples: _Samples = {}
    for _ in range(plan.repetitions):
        _tags(samples)
    _on_the_wire(plan, samples)
    _messages(plan, samples)
    _catch_up(plan, samples)
    # Both ways of one row beside each other.
    kinds = list(dict.fromkeys(_kind(name) for name, _ in samples))
    rows = sorted(samples.items(), key=lambda row: kinds.index(_kind(row[0][0])))
    return [
        Figure(group="Authenticated frames", name=name, unit=unit, samples=tuple(values))
        for (name, unit), values in rows
    ]


def _kind(name: str) -> str:
    return name.removesuffix(", with").removesuffix(", without")


def _note(samples: _Samples, name: str, unit: str, value: float) -> None:
    samples.setdefault((name, unit), []).append(value)


def _tags(samples: _Samples) -> None:
    mac = FrameMac(secrets.token_bytes(32))
    for size in _FRAMES:
        tag = partial(mac.tag, os.urandom(size))
        times = max(20, 4_000_000 // (size + 500))
        _note(samples, f"the tag of a frame of {size:,} bytes", "us", 1e6 * seconds(tag, times))


def _on_the_wire(plan: Plan, samples: _Samples) -> None:
    for repetition in range(min(2, plan.repetitions)):  # bytes hardly vary
        for way, secret in _WAYS.items():
            for what, value in asyncio.run(wire.measure(repetition, secret)).items():
                _note(samples, f"{what}, {way}", "bytes", value)


def _messages(plan: Plan, samples: _Samples) -> None:
    with workers(Host, 2 * len(_WAYS)) as hosts:
        pairs = {way: (hosts.pop(), hosts.pop()) for way in _WAYS}
        for way, (sender, receiver) in pairs.items():
            address = sender.call("start", "sender", listen="127.0.0.1:0", secret=_WAYS[way])
            receiver.call("start", "receiver", peers=address, secret=_WAYS[way])
            receiver.call("settle", 2, 0)
            receiver.call("subscribe")
        for _ in range(plan.repetitions):
            for way, (sender, receiver) in pairs.items():
                sender.call("publish_paced", plan.changes, _INTERVAL)
                delays = receiver.call("received_messages", plan.changes)
                delay = 1e3 * percentile(delays, 50)
                _note(samples, f"a message alone until it is received, p50, {way}", "ms", delay)
                for size in _SIZES:
                    sender.call("publish", plan.burst, size)
                    took = 1e3 * max(receiver.call("received_messages", plan.burst))
                    name = f"{plan.burst:,} messages of {size:,} characters, {way}"
                    _note(samples, name, "ms", took)


def _catch_up(plan: Plan, samples: _Samples) -> None:
    with workers(Host, len(_WAYS)) as hosts:
        owners = {way: hosts.pop() for way in _WAYS}
        addresses = {}
        for way, owner in owners.items():
            addresses[way] = owner.call("start", "owner", listen="127.0.0.1:0", secret=_WAYS[way])
            owner.call("fill", plan.large)
            owner.call("resident")  # collects the garbage of the filling
        for number in range(plan.repetitions):
            for way, secret in _WAYS.items():
                with workers(Host, 1) as (newcomer,):
                    peers = addresses[way]
                    newcomer.call("start", f"new {number}", peers=peers, secret=secret)
                    took = 1e3 * newcomer.call("settle", 2, plan.large)
                    _note(samples, f"a new node learns {plan.large:,} presences, {way}", "ms", took)
                    newcomer.call("stop")
