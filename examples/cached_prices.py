"""A cache in each worker, kept fresh by messages between the workers, without Redis pub/sub.

    pip install fastapi 'uvicorn[standard]'
    PRICES=/tmp/prices.db uvicorn cached_prices:app --workers 4

    curl -X PUT http://127.0.0.1:8000/prices/tea -H 'content-type: application/json' -d 450
    curl http://127.0.0.1:8000/prices/tea

Prices are in a database, and each worker remembers those that it has read. A worker that changes a
price tells all workers to forget it.
"""

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Body, FastAPI, HTTPException, Path

import adsum

TOPIC = "prices"
#: Seconds for which a price is remembered at most, in case a message is missed.
MAX_AGE = 60
#: A thing that has a price.
Item = Annotated[str, Path(max_length=100)]

node = adsum.Node()
pubsub = adsum.PubSub(node)
database = sqlite3.connect(os.environ.get("PRICES", "prices.db"), isolation_level=None)
database.execute("CREATE TABLE IF NOT EXISTS prices (item TEXT PRIMARY KEY, price INTEGER)")
# The remembered prices, each with the time until which it is used.
cache: dict[str, tuple[int, float]] = {}


async def forget_changed_prices(messages: adsum.Subscription) -> None:
    """Forget each price that a worker has changed, and all if there were too many messages."""
    dropped = 0
    async for message in messages:
        cache.pop(message.payload["item"], None)
        if messages.dropped > dropped:
            dropped = messages.dropped
            cache.clear()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run the node, and forget prices meanwhile."""
    async with node:
        with pubsub.subscribe(TOPIC) as messages:
            forgetting = asyncio.create_task(forget_changed_prices(messages))
            yield
        await forgetting  # the end of the subscription ends it


app = FastAPI(lifespan=lifespan)


@app.get("/prices/{item}")
async def price(item: Item) -> dict[str, Any]:
    """A price, from memory if this worker remembers it."""
    known, until = cache.get(item, (0, 0.0))
    if remembered := time.monotonic() < until:
        return {"price": known, "remembered": remembered, "worker": os.getpid()}
    row = database.execute("SELECT price FROM prices WHERE item = ?", (item,)).fetchone()
    if row is None:
        raise HTTPException(404)
    # No `await` since the read: a change after the read is announced after this line.
    cache[item] = row[0], time.monotonic() + MAX_AGE
    return {"price": row[0], "remembered": remembered, "worker": os.getpid()}


@app.put("/prices/{item}", status_code=204)
async def change_price(item: Item, price: Annotated[int, Body(ge=0)]) -> None:
    """Change a price, first in the database, and then in the memory of all workers."""
    database.execute("INSERT OR REPLACE INTO prices VALUES (?, ?)", (item, price))
    await pubsub.publish(TOPIC, {"item": item})
