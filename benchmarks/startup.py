"""How nodes form a cluster when they all start at once: many nodes in one process.

python -m benchmarks.startup                  20, 60 and 100 nodes
python -m benchmarks.startup 60 --share 0.5   60 nodes that get half of a core

Every node finds the others by their sockets on this host, so there are N(N-1) link ends to make.
The processor time counts until the last of them is open; the idle traffic is counted after that,
and is the payload that one node sends in a second. A share below 1 stops the process for the rest
of each 20 ms, as a busy machine does.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import adsum

SIZES = (20, 60, 100)
#: Seconds after which an attempt is given up.
GIVE_UP = 60.0
#: Seconds of idle traffic that are counted, and the pause before that.
IDLE_SECONDS = 10.0
IDLE_AFTER = 5.0
#: Seconds of one turn of a process that gets a share of a core.
TURN = 0.02


async def form(count: int) -> dict[str, float]:
    """Start nodes, wait until all are linked, and count the idle traffic."""
    nodes = [adsum.Node(cluster="startup") for _ in range(count)]
    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(node.start() for node in nodes))
    started = time.perf_counter() - wall
    ends = 0
    while time.perf_counter() - wall < GIVE_UP:
        ends = sum(node.stats()["links"] for node in nodes)
        if ends == count * (count - 1):
            break
        await asyncio.sleep(0.02)
    result = {
        "link ends": ends,
        "of": count * (count - 1),
        "start s": started,
        "linked s": time.perf_counter() - wall,
        "linked cpu s": time.process_time() - cpu,
    }
    await asyncio.sleep(IDLE_AFTER)
    sent, cpu = sum(node.stats()["sent_bytes_total"] for node in nodes), time.process_time()
    await asyncio.sleep(IDLE_SECONDS)
    sent = sum(node.stats()["sent_bytes_total"] for node in nodes) - sent
    result["idle kB/s each"] = sent / IDLE_SECONDS / count / 1e3
    result["idle cpu %"] = 100 * (time.process_time() - cpu) / IDLE_SECONDS
    await asyncio.gather(*(node.stop() for node in nodes))
    return result


def measure(count: int, share: float) -> dict[str, float]:
    """Run one attempt in a process of its own."""
    with tempfile.TemporaryDirectory() as directory:
        environment = {
            **os.environ,
            "XDG_RUNTIME_DIR": directory,
            "ADSUM_RUNTIME_DIR": directory,
            "TMPDIR": directory,
        }
        command = [sys.executable, "-m", "benchmarks.startup", str(count), "--inside"]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
            while share < 1 and process.poll() is None:
                time.sleep(TURN * share)
                process.send_signal(signal.SIGSTOP)
                time.sleep(TURN * (1 - share))
                process.send_signal(signal.SIGCONT)
            assert process.stdout is not None
            result: dict[str, float] = json.loads(process.stdout.read())
            return result


def main() -> None:
    """Measure each size and print a line for it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("nodes", nargs="*", type=int, default=SIZES)
    parser.add_argument("--share", type=float, default=1.0, help="of a core")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for count in options.nodes:
        if options.inside:
            print(json.dumps(asyncio.run(form(count))))
        else:
            result = measure(count, options.share)
            values = ", ".join(f"{name} {value:.4g}" for name, value in result.items())
            print(f"{count} nodes, {options.share:g} of a core: {values}", flush=True)


if __name__ == "__main__":
    main()
