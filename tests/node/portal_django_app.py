"""A Django project with synchronous views and a portal, for gunicorn: tracks and lists keys."""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

import adsum

settings.configure(
    SECRET_KEY="x" * 50, ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"], MIDDLEWARE=[]
)
portal = adsum.Portal()
portal.count("room")  # in the master, if it preloads the application


@csrf_exempt
def track(request: HttpRequest, key: str) -> HttpResponse:
    portal.track("room", key)
    return JsonResponse(os.getpid(), safe=False)


def keys(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"pid": os.getpid(), "room": portal.list("room")})


urlpatterns = [path("track/<str:key>", track), path("list", keys)]
app = get_wsgi_application()
