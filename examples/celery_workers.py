"""Live Celery workers, their queues and their load, and the tasks that died with a worker.

    pip install 'celery[redis]'
    export ADSUM_CLUSTER=shop                       # in each terminal: one cluster
    python celery_workers.py                        # shows the workers at each change
    celery -A celery_workers worker -c 2 -Q mail    # in a second terminal
    python celery_workers.py send 5                 # in a third one

Redis passes the tasks on, at $REDIS_URL. It holds nothing of the presences.
"""

import os
import socket
import sys
import time
from typing import Any

from celery import Celery, signals

import adsum

app = Celery("celery_workers", broker=os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"))
portal = adsum.Portal()  # starts at its first use, in each child of a worker


class Child:
    """The presence of this process, one of the children that a worker runs tasks in."""

    def __init__(self) -> None:
        self.queues = sorted(app.amqp.queues.consume_from)
        key = f"{socket.gethostname()}:{os.getpid()}"
        self.tracked = portal.track("workers", key, self.meta({}))

    def meta(self, tasks: dict[str, str]) -> dict[str, Any]:
        return {"queues": self.queues, "tasks": tasks}

    def begin(self, task_id: str, task: Any, **_: Any) -> None:
        self.tracked.update(self.meta({task_id: task.name}))

    def end(self, **_: Any) -> None:
        self.tracked.update(self.meta({}))


@signals.worker_process_init.connect
def enter(**_: Any) -> None:
    child = Child()
    signals.task_prerun.connect(child.begin, weak=False)
    signals.task_postrun.connect(child.end, weak=False)


@app.task(ignore_result=True)
def send_mail(seconds: float) -> None:
    """Stands for the work."""
    time.sleep(seconds)


def show_workers() -> None:
    """Print the load of each queue at each change, and the tasks of workers that died."""
    for diff in portal.watch("workers"):
        for worker, entry in diff.leaves.items():
            for task, name in entry["metas"][0]["tasks"].items():
                print(f"{worker} left during {name}, task {task}", flush=True)
        print(load() or "no workers", flush=True)


def load() -> str:
    """One part for each queue: its live workers, and the tasks that they run."""
    queues: dict[str, list[int]] = {}
    for entry in portal.list("workers").values():
        meta = entry["metas"][0]
        for queue in meta["queues"]:
            queues.setdefault(queue, []).append(len(meta["tasks"]))
    return ", ".join(
        f"{queue}: {len(tasks)} workers, {sum(tasks)} tasks"
        for queue, tasks in sorted(queues.items())
    )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["send", count, *seconds]:
            for _ in range(int(count)):
                send_mail.apply_async([float(seconds[0]) if seconds else 3.0], queue="mail")
        case _:
            show_workers()
