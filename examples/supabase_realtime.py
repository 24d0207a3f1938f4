"""Supabase Realtime clients: broadcast and presence for supabase-js and others, as they are.

    pip install PyJWT starlette 'uvicorn[standard]'
    export SUPABASE_ANON_KEY=$(python -c 'import secrets; print(secrets.token_urlsafe())')
    export SUPABASE_JWT_SECRET=$(python -c 'import secrets; print(secrets.token_urlsafe())')
    uvicorn supabase_realtime:app --workers 4 --ws-per-message-deflate false

In the page, `new RealtimeClient("ws://127.0.0.1:8000/realtime/v1", {params: {apikey}})` is all that
changes, where `apikey` is the first of the two secrets. The second signs the tokens of users.
"""

import asyncio
import hmac
import json
import math
import os
import sys
import time
import uuid
from typing import Any

import jwt
from starlette.applications import Starlette
from starlette.routing import Mount

import adsum
from adsum.channels import (
    BinaryFrames,
    Channel,
    ChannelPresence,
    Client,
    Frame,
    Reason,
    RefusedError,
    Socket,
    on,
)


def setting(name: str) -> str:
    """A secret, the same in every worker; without it nothing starts."""
    given = os.environ.get(name, "")
    if len(given) < 32:
        print(f"{name}: must be set, to 32 characters or more", file=sys.stderr)
        sys.exit(3)  # uvicorn and gunicorn then stop, instead of starting workers again and again
    return given


API_KEY, JWT_SECRET = setting("SUPABASE_ANON_KEY"), setting("SUPABASE_JWT_SECRET")

node = adsum.Node()
presence = adsum.Presence(node)


# Who may do what: replace these two functions by the rules of your application.


def may_join(user: str | None, name: str) -> bool:
    """Whether a user may join a topic; None is everybody who has only the API key."""
    return user is not None or not name.startswith("private:")


def read_token(token: Any) -> tuple[str | None, float]:
    """The user of an access token, and the time at which it expires."""
    if token is None or token == API_KEY:
        return None, math.inf
    try:
        claims = jwt.decode(
            token,
            JWT_SECRET,
            algorithms=["HS256"],
            audience="authenticated",
            options={"require": ["exp", "sub"]},
        )
    except (jwt.PyJWTError, TypeError, ValueError) as error:
        raise RefusedError(f"InvalidJWTToken: {error}") from None
    return claims["sub"], float(claims["exp"])


async def connect(client: Client) -> None:
    """Admit a client with the API key."""
    if not hmac.compare_digest(client.params.get("apikey", "").encode(), API_KEY.encode()):
        raise RefusedError("apikey: unknown")


class Realtime(Channel, topic="realtime:{name...}"):
    """One client on one topic: `supabase.channel(name)` on the other side."""

    me: ChannelPresence | None = None
    expiry: asyncio.TimerHandle | None = None

    async def join(self, payload: Any) -> dict[str, Any]:
        config = section(payload, "config")
        broadcast, presence = section(config, "broadcast"), section(config, "presence")
        if config.get("postgres_changes"):
            raise RefusedError("postgres_changes: this server has no database")
        self.private = config.get("private") is True
        self.acknowledges, self.echoes = broadcast.get("ack"), broadcast.get("self")
        self.key = text(presence, "key", uuid.uuid4().hex)
        self.authorise(section(payload).get("access_token"))
        if presence.get("enabled", True):  # earlier clients do not send it
            self.follow()
        return {"postgres_changes": []}

    def authorise(self, token: Any) -> None:
        """Check a token: that of the join, and each one that replaces it."""
        user, expires_at = read_token(token)
        if not may_join(user, self.params["name"]) or (self.private and user is None):
            raise RefusedError("Unauthorized: you may not join this topic")
        if self.expiry is not None:
            self.expiry.cancel()
        if expires_at < math.inf:
            left = max(0.0, expires_at - time.time())
            loop = asyncio.get_running_loop()
            self.expiry = loop.call_later(left, self.end, "Access token has expired")

    def end(self, message: str) -> None:
        """Tell the client why, and close the channel; the client does not rejoin."""
        reason = {"extension": "system", "status": "error", "message": message}
        self.push("system", {"channel": self.params["name"], **reason})
        self.stop()

    async def terminate(self, reason: Reason) -> None:
        if self.expiry is not None:
            self.expiry.cancel()

    @on("access_token")
    async def renew(self, payload: Any) -> None:
        """`setAuth` on the other side: another token, or none after a sign-out."""
        try:
            self.authorise(section(payload).get("access_token"))
        except RefusedError as refusal:
            self.end(refusal.response["reason"])

    @on("broadcast")
    async def send(self, payload: Any) -> dict[str, Any] | None:
        """JSON for all clients, or bytes for those that can take them, see `UserBroadcasts`."""
        if not isinstance(payload, bytes):
            event, value = text(payload, "event"), payload.get("payload", {})
            payload = {"type": "broadcast", "event": event, "payload": value}
        send = self.broadcast if self.echoes else self.broadcast_from
        try:
            await send("broadcast", payload)
        except ValueError as error:  # too large, too deep, or not finite
            raise RefusedError(str(error)) from None
        return {} if self.acknowledges else None

    @on("presence")
    async def present(self, payload: Any) -> dict[str, Any]:
        """Track for the first time, track again, or untrack."""
        event, meta = text(payload, "event"), section(payload, "payload")
        try:
            if event == "untrack" and self.me is not None:
                self.me.untrack()
                self.me = None
            elif event == "track" and self.me is not None:
                self.me.update(meta)
            elif event == "track":
                self.me = self.track(self.key, meta)
        except ValueError as error:
            raise RefusedError(str(error)) from None
        return {}


class UserBroadcasts(BinaryFrames):
    """The binary frames of realtime-js: one kind from a client, one to it; see its serializer."""

    PUSH, BROADCAST = 3, 4
    BYTES, JSON = 0, 1

    def decode(self, data: bytes) -> Frame:
        """Kind, five lengths, encoding, join ref, ref, topic, event, metadata, payload."""
        if data[0] != self.PUSH:
            raise ValueError("another kind")
        words, at = [], 7
        for length in data[1:6]:
            words.append(data[at : at + length])
            at += length
        if at > len(data):
            raise ValueError("truncated")
        join_ref, ref, topic, event = (word.decode() for word in words[:4])
        if data[6] == self.JSON:
            payload: Any = {"event": event, "payload": json.loads(data[at:])}
        else:  # as `broadcast` needs it: lengths of event and metadata, encoding, event, payload
            payload = bytes([len(words[3]), 0, self.BYTES]) + words[3] + data[at:]
        return Frame(join_ref, ref, topic, "broadcast", payload)

    def broadcast(self, topic: str, event: str, payload: bytes) -> bytes:
        """Kind, three lengths, encoding, topic, event, metadata, payload."""
        name = topic.encode()
        return bytes([self.BROADCAST, len(name)]) + payload[:3] + name + payload[3:]


def section(value: Any, name: str | None = None) -> dict[str, Any]:
    """An object that a client sent, or one within it; empty if it sent something else."""
    found = value if name is None or not isinstance(value, dict) else value.get(name)
    return found if isinstance(found, dict) else {}


def text(value: Any, name: str, default: str = "") -> str:
    """A text that a client sent within an object; what else it may have sent is refused."""
    found = section(value).get(name) or default
    if not isinstance(found, str) or not 0 < len(found) <= 255:
        raise RefusedError(f"{name}: must have 1 to 255 characters")
    return found


# Clients of all sites are admitted: they show a key and a token, and no cookie is looked at.
socket = Socket(
    presence, [Realtime], connect=connect, origins=["*"], binary_frames=UserBroadcasts()
)
app = Starlette(routes=[Mount("/realtime/v1", socket)], lifespan=node.lifespan)
