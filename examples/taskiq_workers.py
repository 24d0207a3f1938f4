"""Live taskiq workers, their queues and their load, and the tasks that died with a worker.

    pip install taskiq taskiq-redis
    export ADSUM_CLUSTER=shop                         # in each terminal: one cluster
    python taskiq_workers.py                          # shows the workers at each change
    taskiq worker taskiq_workers:broker --workers 2   # in a second terminal
    python taskiq_workers.py send 5                   # in a third one

Redis passes the tasks on, at $REDIS_URL. It holds nothing of the presences.
"""

import asyncio
import os
import socket
import sys
from typing import Any

from taskiq import TaskiqEvents, TaskiqMessage, TaskiqMiddleware, TaskiqResult, TaskiqState
from taskiq_redis import ListQueueBroker

import adsum

QUEUE = os.environ.get("QUEUE", "mail")
URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")
ME = f"{socket.gethostname()}:{os.getpid()}"

node = adsum.Node()
presence = adsum.Presence(node)


class ShowLoad(TaskiqMiddleware):
    """Keeps the tasks in progress in the meta of this worker."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: dict[str, str] = {}

    async def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        self.tasks[message.task_id] = message.task_name
        self.show()
        return message

    async def post_execute(self, message: TaskiqMessage, result: TaskiqResult[Any]) -> None:
        self.tasks.pop(message.task_id, None)
        self.show()

    def show(self) -> None:
        presence.update("workers", ME, {"queues": [QUEUE], "tasks": self.tasks}, owner=ME)


# A worker that has no task waits in a read, which newer clients of Redis end after 5 s by default.
broker = ListQueueBroker(URL, queue_name=QUEUE, socket_timeout=None).with_middlewares(ShowLoad())


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def enter(state: TaskiqState) -> None:
    await node.start()
    presence.track("workers", ME, {"queues": [QUEUE], "tasks": {}}, owner=ME)


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def leave(state: TaskiqState) -> None:
    await node.stop()


@broker.task
async def send_mail(seconds: float) -> None:
    """Stands for the work."""
    await asyncio.sleep(seconds)


async def show_workers() -> None:
    """Print the load of each queue at each change, and the tasks of workers that died."""
    async with node:
        async for diff in presence.watch("workers"):
            for worker, entry in diff.leaves.items():
                for task, name in entry["metas"][0]["tasks"].items():
                    print(f"{worker} left during {name}, task {task}", flush=True)
            print(load() or "no workers", flush=True)


def load() -> str:
    """One part for each queue: its live workers, and the tasks that they run."""
    queues: dict[str, list[int]] = {}
    for entry in presence.list("workers").values():
        meta = entry["metas"][0]
        for queue in meta["queues"]:
            queues.setdefault(queue, []).append(len(meta["tasks"]))
    return ", ".join(
        f"{queue}: {len(tasks)} workers, {sum(tasks)} tasks"
        for queue, tasks in sorted(queues.items())
    )


async def send(count: int, seconds: float) -> None:
    """Queue some tasks, as a web application would."""
    await broker.startup()
    for _ in range(count):
        await send_mail.kiq(seconds)
    await broker.shutdown()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["send", count, *seconds]:
            asyncio.run(send(int(count), float(seconds[0]) if seconds else 3.0))
        case _:
            asyncio.run(show_workers())
