"""An OAuth 2.0 authorization server (django-oauth-toolkit) and a protected
resource, in one process, for the conformance tests.

    python3 server.py '{"scopes":["read"]}'

It listens on a free loopback port. When it is ready, it prints its URLs as one line
of JSON:

    token    the token endpoint
    api      answers 200 with the client's id for a live token, else 401
    admin    POST admin/clients   adds or replaces the clients in a JSON list, as in
                                  RFC 7591; ttl is the lifetime of their tokens in
                                  seconds
             POST admin/revoke    revokes the token in the body

The process ends when its standard input is closed. So it can't outlive the test that
started it, however that test ends.
"""

import json
import logging
import os
import socket
import sys
import threading

import django
from django.conf import settings
from django.core.management import call_command
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.db import connections
from django.http import JsonResponse
from django.urls import path

config = json.loads(sys.argv[1])
metadata = {}

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    DATABASES={"default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": ":memory:",
        "CONN_MAX_AGE": None,
        "OPTIONS": {"check_same_thread": False},
    }},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"],
    LOGGING_CONFIG=None,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],  # for Content-Length
    # Without migrations, the tables are created at once.
    MIGRATION_MODULES={"auth": None, "contenttypes": None, "oauth2_provider": None},
    OAUTH2_PROVIDER={
        "DEFAULT_SCOPES": [],
        "EXTRA_SERVER_KWARGS": {"token_expires_in": lambda request: metadata[request.client.client_id]["ttl"]},
        "SCOPES": {scope: scope for scope in config["scopes"]},
        "SCOPES_BACKEND_CLASS": "__main__.Scopes",
    },
    ROOT_URLCONF="__main__",
    SECRET_KEY="only for this process",
    USE_TZ=True,
)
django.setup()

from django.core.wsgi import get_wsgi_application  # noqa: E402
from oauth2_provider.models import AccessToken, Application  # noqa: E402
from oauth2_provider.oauth2_backends import get_oauthlib_core  # noqa: E402
from oauth2_provider.scopes import SettingsScopes  # noqa: E402
from oauth2_provider.views import TokenView  # noqa: E402


class Scopes(SettingsScopes):
    """Grants scopes by client instead of by server."""

    def get_available_scopes(self, application=None, request=None, *args, **kwargs):
        return metadata[application.client_id]["scope"].split()


def api(request):
    # The toolkit's own protection of views answers 403. This one is taken from its support
    # for the Django REST framework (contrib/rest_framework/authentication.py).
    valid, r = get_oauthlib_core().verify_request(request, scopes=[])
    if valid:
        return JsonResponse({"client_id": r.client.client_id, "scope": r.access_token.scope})
    error = getattr(r, "oauth2_error", {})
    response = JsonResponse(dict(error), status=401)
    response["WWW-Authenticate"] = "Bearer " + ",".join(
        f'{k}="{v}"' for k, v in {"realm": "api", **error}.items())
    return response


def clients(request):
    for c in json.loads(request.body):
        metadata[c["client_id"]] = c
        Application.objects.update_or_create(client_id=c["client_id"], defaults={
            "client_secret": c["client_secret"],
            "client_type": Application.CLIENT_CONFIDENTIAL,
            # A client has one grant.
            "authorization_grant_type": Application.GRANT_CLIENT_CREDENTIALS
            if "client_credentials" in c.get("grant_types", ["client_credentials"]) else Application.GRANT_PASSWORD,
        })
    return JsonResponse({})


def revoke(request):
    AccessToken.objects.get(token=request.body.decode()).revoke()
    return JsonResponse({})


urlpatterns = [
    path("token", TokenView.as_view()),
    path("api", api),
    path("clients", clients),
    path("revoke", revoke),
]

call_command("migrate", run_syncdb=True, verbosity=0)
app = get_wsgi_application()
database = connections["default"]
lock = threading.Lock()  # protects database


def serve(environ, start_response):
    # A database in memory belongs to one connection, but Django would use one for each
    # thread.
    with lock:
        connections["default"] = database
        return app(environ, start_response)


class Handler(WSGIRequestHandler):
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass


logging.getLogger("django.request").setLevel(logging.ERROR)
database.inc_thread_sharing()
httpd = ThreadedWSGIServer(("127.0.0.1", 0), Handler)
httpd.socket.listen(socket.SOMAXCONN)
httpd.set_app(serve)
origin = f"http://127.0.0.1:{httpd.server_port}"
threading.Thread(target=httpd.serve_forever, daemon=True).start()
print(json.dumps({"token": origin + "/token", "api": origin + "/api", "admin": origin}), flush=True)

sys.stdin.read()
os._exit(0)
