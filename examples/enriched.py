"""Names and colours from a database, added to presences when they are read, in one batch.

    python enriched.py

The cluster carries user ids alone. What belongs to a user is looked up where it is shown, once
for each list or diff, so it is never stale in the cluster and never sent through it.
"""

import asyncio
import sqlite3
from typing import Any

import adsum

database = sqlite3.connect(":memory:", check_same_thread=False)
database.executescript("""
    create table users (id text primary key, name text, colour text);
    insert into users values
        ('1', 'Ann', 'red'), ('2', 'Bob', 'green'), ('3', 'Cleo', 'blue'), ('4', 'Dai', 'grey');
""")


def look_up(ids: list[str]) -> dict[str, dict[str, Any]]:
    """One query for all of them."""
    marks = ",".join("?" * len(ids))
    query = f"select id, name, colour from users where id in ({marks})"
    rows = database.execute(query, ids).fetchall()
    print(f"  (one query for {len(ids)} users)")
    return {id: {"user": {"name": name, "colour": colour}} for id, name, colour in rows}


async def fetch(topic: str, entries: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What to add beside the metas of each key. sqlite blocks, so it gets a thread."""
    return await asyncio.to_thread(look_up, list(entries))


def names(entries: dict[str, Any]) -> str:
    """The names in a list or a diff; a user whom the table does not know goes by the id."""
    return ", ".join(entry.get("user", {}).get("name", key) for key, entry in entries.items())


async def main() -> None:
    """Four users, and one that the table does not know, come and go."""
    node = adsum.Node(siblings=False)
    presence = adsum.Presence(node, fetch=fetch)
    async with node:
        for id in ("1", "2", "3"):
            presence.track("room:1", id)
        print("present:", names(await presence.fetch("room:1")))
        with presence.watch("room:1") as diffs:
            print("first diff, joined:", names((await anext(diffs)).joins))
            presence.untrack("room:1", "2")
            presence.track("room:1", "4")
            presence.track("room:1", "99")
            diff = await anext(diffs)
            print("second diff, joined:", names(diff.joins), "left:", names(diff.leaves))


if __name__ == "__main__":
    asyncio.run(main())
