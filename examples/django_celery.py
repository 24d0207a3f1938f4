"""Tasks of Celery that send to the rooms of `django_channels_layer.py`, and receive answers.

    pip install '..[django]' 'celery[redis]' daphne
    daphne -p 8000 django_channels_layer:application
    celery -A django_celery worker -c 2
    python django_celery.py announce 1 "closed at six"
    python django_celery.py ask 1 "who is here?"

Redis passes the tasks on, at $REDIS_URL. The messages of the layer do not pass through it.
"""

import asyncio
import os
import sys

from asgiref.sync import async_to_sync
from celery import Celery
from channels.layers import get_channel_layer

from django_channels_layer import say  # has the settings

app = Celery("django_celery", broker=os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"))


@app.task(ignore_result=True)
def announce(room: str, text: str) -> None:
    """Say something in a room."""
    say(room, text)


@app.task(ignore_result=True)
def ask(room: str, question: str) -> None:
    """Say a question in a room, and repeat the first answer."""
    say(room, f"heard: {async_to_sync(answer)(room, question)}")


async def answer(room: str, question: str) -> str:
    """The next text in a room after a question, within 10 s."""
    layer = get_channel_layer()
    channel = await layer.new_channel()
    await layer.group_add(f"room.{room}", channel)
    try:
        message = {"type": "message", "text": question}
        await layer.group_send(f"room.{room}", message)
        while message["text"] == question:
            message = await asyncio.wait_for(layer.receive(channel), 10)
        return message["text"]
    finally:
        await layer.group_discard(f"room.{room}", channel)


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    app.tasks[f"{app.main}.{name}"].delay(*arguments)
