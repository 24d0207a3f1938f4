"""GraphQL subscriptions with Strawberry: the users of a room and its messages, from any worker.

    pip install 'strawberry-graphql[fastapi]' 'uvicorn[standard]'
    uvicorn graphql_subscriptions:app --workers 4

Open http://127.0.0.1:8000/graphql in some windows, and run one of these in each:

    subscription { presence(room: "1", user: "ann") { joins leaves } }
    subscription { messages(room: "1") { user text } }
    mutation { say(room: "1", user: "ann", text: "hello") }
    query { users(room: "1") }
"""

from collections.abc import AsyncGenerator
from contextlib import nullcontext

import strawberry
from fastapi import FastAPI
from starlette.websockets import WebSocketState
from strawberry.fastapi import GraphQLRouter

import adsum

#: Seconds for which a user stays listed after the connection was lost, since clients reconnect.
LINGER = 5

node = adsum.Node()
presences = adsum.Presence(node)
pubsub = adsum.PubSub(node)


@strawberry.type
class Change:
    """The users that joined and left since the last change; first, all that are present."""

    joins: list[str]
    leaves: list[str]


@strawberry.type
class Text:
    """A text of a user to a room."""

    user: str
    text: str


@strawberry.type
class Query:
    """Reads, answered from memory."""

    @strawberry.field
    async def users(self, room: str) -> list[str]:
        """The users of a room, whichever worker they are connected to."""
        return list(presences.list(f"room:{room}"))


@strawberry.type
class Mutation:
    """Writes."""

    @strawberry.mutation
    async def say(self, room: str, user: str, text: str) -> int:
        """Send a text to a room; returns the number of workers that missed it."""
        return await pubsub.publish(f"room:{room}", {"user": user, "text": text})


@strawberry.type
class Subscription:
    """Streams. Strawberry closes the generator when the client completes or its connection ends."""

    @strawberry.subscription
    async def presence(
        self, info: strawberry.Info, room: str, user: str | None = None
    ) -> AsyncGenerator[Change, None]:
        """Changes of the users of a room; with a user, be in the room while subscribed."""
        topic = f"room:{room}"
        known: set[str] | None = None
        with (
            nullcontext() if user is None else presences.track(topic, user, linger=LINGER) as me,
            presences.watch(topic) as diffs,
        ):
            try:
                async for _ in diffs:
                    users = {*presences.list(topic)}
                    if users != known:  # and not a second device only
                        before, known = known or set(), users
                        yield Change(joins=sorted(users - before), leaves=sorted(before - users))
            finally:
                if me is not None and is_connected(info):
                    me.untrack()  # the client has completed the subscription

    @strawberry.subscription
    async def messages(self, room: str) -> AsyncGenerator[Text, None]:
        """Texts that are sent to a room from now on."""
        with pubsub.subscribe(f"room:{room}") as messages:
            async for message in messages:
                yield Text(user=message.payload["user"], text=message.payload["text"])


def is_connected(info: strawberry.Info) -> bool:
    """Whether the WebSocket of a subscription is open."""
    return getattr(info.context["request"], "client_state", None) is WebSocketState.CONNECTED


schema = strawberry.Schema(Query, Mutation, Subscription)
app = FastAPI(lifespan=node.lifespan)
app.include_router(GraphQLRouter(schema), prefix="/graphql")
