"""A Celery application whose tasks use one module-level portal; its broker is a folder."""

import os
import time

from celery import Celery

import adsum

FOLDER = os.environ["BROKER_FOLDER"]
portal = adsum.Portal()
app = Celery("tasks", broker="filesystem://")
app.conf.update(
    broker_transport_options={
        "data_folder_in": FOLDER,
        "data_folder_out": FOLDER,
        "control_folder": f"{FOLDER}/control",
        "polling_interval": 0.05,
    },
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
)


@app.task
def enter(key: str) -> None:
    """Track a key in the child that runs the task, and publish its process."""
    portal.track("room", key, {"pid": os.getpid()})
    portal.publish("room", {"key": key, "pid": os.getpid()})


@app.task
def wait(key: str) -> None:
    """Track a key, and run until the process is killed."""
    with portal.track("room", key, {"pid": os.getpid()}):
        time.sleep(600)
