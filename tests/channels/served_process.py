"""Applications in processes of their own, under uvicorn."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.environment import clean_environment
from tests.support.ports import free_port
from tests.support.waiting import DEADLINE

from .served_app import ServedApp

ROOT = Path(__file__).parents[2]


class Port(ServedApp):
    """Where an application is, for clients that ask a site for its port."""

    def __init__(self, port: int) -> None:
        self.port = port


@contextmanager
def served_process(
    app: str, cluster: str, *options: str
) -> Iterator[tuple[Port, "subprocess.Popen[bytes]"]]:
    """Start uvicorn with an application of this folder, and stop it after the block.

    Args:
        app: Its module and name, as in ``multi_worker_app:app``.
        cluster: The cluster of its node.
        options: Further options of uvicorn.
    """
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"tests.channels.{app}", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--log-level", "warning", *options],
        env={**clean_environment(), "ADSUM_CLUSTER": cluster},
        cwd=ROOT,
    )
    try:
        yield Port(port), process
    finally:
        process.terminate()
        process.wait(DEADLINE)
