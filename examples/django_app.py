"""Channels and presence in Django: its sessions say who it is, its system checks how adsum is.

    pip install '..[demo]' django
    export SECRET_KEY=$(python -c 'import secrets; print(secrets.token_urlsafe())')
    uvicorn django_app:application --workers 2 --ws-per-message-deflate false

Or `hypercorn django_app:application --workers 2`. Open http://127.0.0.1:8000/ in two browsers.
`python django_app.py check --deploy` tells what is wrong with the settings, if anything is;
http://127.0.0.1:8000/health tells of the cluster as well.
"""

import asyncio
import os
import sys
from functools import cached_property
from importlib import import_module
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core import checks
from django.core.asgi import get_asgi_application
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.http.cookie import parse_cookie
from django.middleware.csrf import get_token
from django.urls import path, register_converter
from django.urls.converters import StringConverter
from django.views.decorators.http import require_POST

import adsum
from adsum.channels import Channel, Client, RefusedError, Socket, on
from adsum.cli import phoenixjs

# Settings. A project of your own has them in a file of their own.


def secret_key() -> str:
    """The key that signs sessions, the same in every worker; without one nothing starts."""
    given = os.environ.get("SECRET_KEY", "")
    if len(given) < 32:
        print("SECRET_KEY: must be set, to 32 characters or more", file=sys.stderr)
        sys.exit(3)  # uvicorn and gunicorn then stop, instead of starting workers again and again
    return given


settings.configure(
    SECRET_KEY=secret_key(),
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.sessions", f"{__name__}.AdsumConfig"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
    ],
    # In the cookie itself, signed: so there need be no database here.
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    # What `adsum.Node` is given; what is not here comes from the environment, as ADSUM_LISTEN.
    ADSUM={},
)


# The app. In a project of your own it is a package, and this is its apps.py.


class AdsumConfig(AppConfig):
    """The node of this process, and what is made of it; made when it is first asked for."""

    name = __name__
    label = "adsum"

    def ready(self) -> None:
        checks.register(check_settings, "adsum")
        checks.register(check_deployment, "adsum", deploy=True)
        checks.register(check_cluster, "adsum")

    @cached_property
    def node(self) -> adsum.Node:
        return adsum.Node(**settings.ADSUM)

    @cached_property
    def presence(self) -> adsum.Presence:
        return adsum.Presence(self.node)

    @cached_property
    def socket(self) -> Socket:
        return Socket(self.presence, [Room], connect=connect)


def here() -> AdsumConfig:
    """The app."""
    app = apps.get_app_config("adsum")
    assert isinstance(app, AdsumConfig)
    return app


def check_settings(app_configs: object, **options: Any) -> list[checks.CheckMessage]:
    """Whether adsum accepts its settings; making a node checks them, and does nothing else."""
    try:
        adsum.Node(**settings.ADSUM)
    except (adsum.ConfigurationError, TypeError) as error:
        hint = "Correct settings.ADSUM, or the variable ADSUM_... in the environment."
        return [checks.Error(f"adsum refuses its settings: {error}", hint=hint, id="adsum.E001")]
    return []


def check_deployment(app_configs: object, **options: Any) -> list[checks.CheckMessage]:
    """Whether those can be in the cluster who should, and others not."""
    if check_settings(app_configs):
        return []
    given = adsum.Node(**settings.ADSUM).settings
    if not given.listen:
        text = "Processes on other hosts cannot join the cluster."
        hint = "Set listen, peers, cluster and secret; or, with one host, silence this check."
        return [checks.Warning(text, hint=hint, id="adsum.W001")]
    if given.secret is None and given.tls is None:
        text = "Whoever has an account on this host can join the cluster: it has no secret."
        hint = "python -c 'import secrets; print(secrets.token_urlsafe())' makes one."
        return [checks.Warning(text, hint=hint, id="adsum.W002")]
    return []


def check_cluster(app_configs: object, **options: Any) -> list[checks.CheckMessage]:
    """How the cluster is, where the node runs: in a server, and not in a command."""
    if check_settings(app_configs) or not here().node.running:
        return []
    members = here().node.members()
    found = list[checks.CheckMessage]()
    down = [member.name for member in members if member.status == "down"]
    if down:
        text = f"Members of the cluster are down: {', '.join(down)}."
        found.append(checks.Warning(text, hint="Did they crash?", id="adsum.W003"))
    late = [f"{member.name} ({member.lag})" for member in members if member.lag]
    if late:
        text = f"Changes of members were heard of and are not here yet: {', '.join(late)}."
        hint = "If it lasts, the network or a member is slow."
        found.append(checks.Warning(text, hint=hint, id="adsum.W004"))
    return found


# Channels.


async def connect(client: Client) -> None:
    """Let in whoever has a session with a user. The browser sends its cookie with the upgrade.

    With `django.contrib.auth`, make an `HttpRequest`, give it this session, and ask `aget_user`.
    """
    key = parse_cookie(client.headers.get("cookie", "")).get(settings.SESSION_COOKIE_NAME)
    session = import_module(settings.SESSION_ENGINE).SessionStore(key)
    user = await session.aget("user")
    if user is None:
        raise RefusedError("sign in first")
    client.id = f"user:{user}"
    client.assigns["user"] = user


class Room(Channel, topic="room:{room}"):
    """One user in a room."""

    async def join(self, payload: Any) -> dict[str, Any]:
        self.track(self.client.assigns["user"])
        return {"worker": os.getpid()}

    @on("shout")
    async def shout(self, payload: Any) -> None:
        """Pass it on to everybody in the room."""
        text = payload.get("text") if isinstance(payload, dict) else None
        if not isinstance(text, str) or len(text) > 500:
            raise RefusedError("text: must have at most 500 characters")
        await self.broadcast("shout", {"user": self.client.assigns["user"], "text": text})


# Views. What uses the node is `async def`: others run in threads, where it may not be used.


class Name(StringConverter):
    """A room in a URL; others are not found."""

    regex = "[^/]{1,100}"


register_converter(Name, "name")


async def who(request: HttpRequest, room: str) -> HttpResponse:
    """Who is in a room, on every worker, and which worker says so."""
    present = here().presence.list(f"room:{room}")
    return JsonResponse({"worker": os.getpid(), "present": present})


@require_POST
async def notify(request: HttpRequest, room: str) -> HttpResponse:
    """Say something to everybody in a room, without being in it."""
    user = await request.session.aget("user")
    if user is None:
        return HttpResponse("sign in first", status=403)
    text = request.POST.get("text", "")[:500]
    await here().socket.broadcast(f"room:{room}", "notice", {"user": user, "text": text})
    return HttpResponse(status=204)


async def health(request: HttpRequest) -> HttpResponse:
    """What the system checks say in this worker, whose node runs."""
    messages = [str(message) for message in checks.run_checks(tags=["adsum"])]
    return JsonResponse({"worker": os.getpid(), "messages": messages, **here().node.stats()})


async def page(request: HttpRequest) -> HttpResponse:
    """Sign in, or the room. In a project of your own these are templates."""
    token = f'<input type=hidden name=csrfmiddlewaretoken value="{get_token(request)}">'
    signed_in = await request.session.aget("user") is not None
    return HttpResponse((ROOM if signed_in else SIGN_IN).replace("TOKEN", token))


@require_POST
async def sign_in(request: HttpRequest) -> HttpResponse:
    """Believe everybody; yours asks for a password."""
    await request.session.aset("user", request.POST.get("user", "")[:40] or "somebody")
    return HttpResponseRedirect("/")


async def phoenix(request: HttpRequest) -> HttpResponse:
    """The client; npm fetches it, once. In a project of your own it is in the bundle."""
    directory = await asyncio.to_thread(phoenixjs.install)
    text = await asyncio.to_thread((directory / "phoenix.mjs").read_bytes)
    return HttpResponse(text, content_type="text/javascript")


SIGN_IN = """<!doctype html><title>Sign in</title>
<form method=post action=/sign-in>TOKEN Your name? <input name=user> <button>Sign in</button></form>
"""

ROOM = """<!doctype html><title>Channels in Django</title>
<p>Here: <span id=people></span></p><ol id=log></ol><input id=text placeholder="say something">
<form id=notify>TOKEN <input name=text placeholder="notice"> <button>Post</button></form>
<script type=module>
  import {Presence, Socket} from "/phoenix.mjs"  // with a bundler: npm install phoenix

  const [people, log, text, notify] =
    ["people", "log", "text", "notify"].map(id => document.getElementById(id))
  const socket = new Socket("/socket", {longPollFallbackMs: 3000})
  const room = socket.channel("room:1")
  const presence = new Presence(room)
  const show = (what) => ({user, text}) => {
    const line = document.createElement("li")
    line.textContent = `${what} ${user}: ${text}`
    log.append(line)
  }

  presence.onSync(() => { people.textContent = presence.list(name => name).join(", ") })
  room.on("shout", show(""))
  room.on("notice", show("notice by"))
  text.onchange = () => room.push("shout", {text: text.value})
  notify.onsubmit = (event) => {
    event.preventDefault()
    fetch("/rooms/1/notices", {method: "POST", body: new FormData(notify)})
  }
  room.join()
  socket.connect()
</script>
"""

urlpatterns = [
    path("", page),
    path("sign-in", sign_in),
    path("health", health),
    path("phoenix.mjs", phoenix),
    path("rooms/<name:room>", who),
    path("rooms/<name:room>/notices", notify),
]


# The ASGI application. In a project of your own this is asgi.py.


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Sockets go to adsum, everything else to Django."""
    if scope["type"] == "lifespan":
        await run_node(receive, send)
    elif scope["type"] == "websocket" or scope["path"].startswith("/socket/"):
        await here().socket(scope, receive, send)
    else:
        await django_application(scope, receive, send)


async def run_node(receive: Any, send: Any) -> None:
    """Run the node while the server runs. Django has no lifespan; this is ASGI's, in full."""
    await receive()
    try:
        await here().node.start()
    except Exception as error:
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await here().node.stop()
    await send({"type": "lifespan.shutdown.complete"})


django_application = get_asgi_application()  # sets Django up

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
