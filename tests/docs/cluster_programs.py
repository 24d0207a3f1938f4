"""Programs of how-to pages in one process, each with a node of its own in a simulated cluster."""

import asyncio
import itertools
import sys
from contextlib import AbstractAsyncContextManager
from types import ModuleType
from typing import Any

from adsum.testing import Cluster

from .example_processes import EXAMPLES

_numbers = itertools.count(1)


class ClusterPrograms:
    """Runs one program on each node of a cluster.

    Args:
        cluster: The cluster; the nodes of the programs become its members.
        name: The file of the program in `examples`.
    """

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self._path = EXAMPLES / name
        self._lifespans: dict[Any, AbstractAsyncContextManager[None]] = {}

    async def start(self, count: int, **settings: Any) -> list[Any]:
        """Start so many nodes with the program, each in its own lifespan if it has one."""
        programs = [self.load(**settings) for _ in range(count)]
        for program in programs:
            self.cluster.adopt(program.node)
            await program.node.start()
            if hasattr(program, "lifespan"):
                lifespan = self._lifespans[program] = program.lifespan(program.app)
                await lifespan.__aenter__()
        await self.settle()
        return programs

    def load(self, **settings: Any) -> Any:
        """The program, in a process of its own as far as it can tell."""
        program = ModuleType(f"program_{next(_numbers)}")
        text = self._path.read_text().replace("adsum.Node()", f"adsum.Node(**{settings!r})")
        sys.modules[program.__name__] = program  # decorators of classes look there
        try:
            exec(compile(text, str(self._path), "exec"), program.__dict__)
        finally:
            del sys.modules[program.__name__]
        return program

    async def settle(self) -> None:
        """Let time pass in the cluster; then the tasks read the diffs that they have received."""
        self.cluster.settle()
        for _ in range(10):
            await asyncio.sleep(0)

    async def stop(self, programs: list[Any]) -> None:
        """End lifespans and nodes in order, as servers do."""
        for program in programs:
            if program in self._lifespans:
                await self._lifespans.pop(program).__aexit__(None, None, None)
            await program.node.stop()
