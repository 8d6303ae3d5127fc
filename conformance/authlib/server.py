"""An OAuth 2.0 authorization server (Authlib on Flask) and a protected resource,
in one process, for the conformance tests.

    python3 server.py '{"scopes":["read"]}'

It listens on a free loopback port. When it is ready, it prints its URLs as one line
of JSON:

    issuer   the audience for clients with "assertion_audience":"issuer"
    token    the token endpoint
    api      answers 200 with the client's id for a live token, else 401
    admin    POST admin/clients   adds or replaces the clients in a JSON list, as in
                                  RFC 7591; ttl is the lifetime of their tokens in
                                  seconds
             POST admin/revoke    revokes the token in the body

The process ends when its standard input is closed. So it can't outlive the test that
started it, however that test ends.

Authlib calls methods of its user to find clients, tokens and keys. The methods here
follow its documentation and are as strict as it allows.
"""

import json
import logging
import os
import socket
import sys
import threading
import time

from authlib.integrations.flask_oauth2 import AuthorizationServer, ResourceProtector, current_token
from authlib.jose import JsonWebKey
from authlib.oauth2.rfc6749 import ClientMixin, InvalidClientError, TokenMixin, grants
from authlib.oauth2.rfc6750 import BearerTokenValidator
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion
from flask import Flask, jsonify, request
from werkzeug.serving import WSGIRequestHandler, make_server

config = json.loads(sys.argv[1])
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # http, but only on the loopback interface

clients, tokens = {}, {}
assertions = set()
lock = threading.Lock()  # protects assertions


class Client(ClientMixin):
    def __init__(self, metadata):
        self.metadata = metadata

    def get_client_id(self):
        return self.metadata["client_id"]

    def get_allowed_scope(self, scope):
        return " ".join(s for s in scope.split() if s in self.metadata["scope"].split())

    def check_client_secret(self, client_secret):
        return self.metadata.get("client_secret") == client_secret

    def check_endpoint_auth_method(self, method, endpoint):
        # Authlib has one class for both methods with an assertion.
        if method == JWTBearerClientAssertion.CLIENT_AUTH_METHOD:
            return self.metadata["token_endpoint_auth_method"] in ("client_secret_jwt", "private_key_jwt")
        return self.metadata["token_endpoint_auth_method"] == method

    def check_grant_type(self, grant_type):
        return grant_type in self.metadata.get("grant_types", ["client_credentials"])


class Token(TokenMixin):
    def __init__(self, client, token):
        self.client_id = client.get_client_id()
        self.scope = token.get("scope", "")
        self.expires_at = time.time() + token["expires_in"]
        self.revoked = False

    def get_scope(self):
        return self.scope

    def is_expired(self):
        return self.expires_at <= time.time()

    def is_revoked(self):
        return self.revoked


class Assertion(JWTBearerClientAssertion):
    """private_key_jwt and client_secret_jwt."""

    def create_claims_options(self):
        options = super().create_claims_options()
        options["aud"] = {"essential": True, "values": [urls["issuer"], urls["token"]]}
        return options

    def process_assertion_claims(self, assertion, resolve_key):
        # RFC 7523 also allows a list. Here it must be this one audience.
        claims = super().process_assertion_claims(assertion, resolve_key)
        audience = clients[claims["sub"]].metadata.get("assertion_audience", "token")
        if claims["aud"] != urls[audience]:
            raise InvalidClientError()
        return claims

    def validate_jti(self, claims, jti):
        with lock:
            new = (claims["sub"], jti) not in assertions
            assertions.add((claims["sub"], jti))
            return new

    def resolve_client_public_key(self, client, headers):
        if headers["alg"] != client.metadata.get("token_endpoint_auth_signing_alg", headers["alg"]):
            raise InvalidClientError()
        if client.metadata["token_endpoint_auth_method"] == "client_secret_jwt":
            if not headers["alg"].startswith("HS"):
                raise InvalidClientError()
            return client.metadata["client_secret"]
        if headers["alg"].startswith("HS"):
            raise InvalidClientError()
        try:
            return JsonWebKey.import_key_set(client.metadata["jwks"]).find_by_kid(headers.get("kid"))
        except ValueError as error:
            raise InvalidClientError() from error


class ClientCredentials(grants.ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = [
        "client_secret_basic",
        "client_secret_post",
        JWTBearerClientAssertion.CLIENT_AUTH_METHOD,
    ]


class Validator(BearerTokenValidator):
    def authenticate_token(self, token_string):
        return tokens.get(token_string)


def life(client, grant_type):
    return client.metadata["ttl"]


def save_token(token, request):
    tokens[token["access_token"]] = Token(request.client, token)


app = Flask(__name__)
# Authlib narrows a request to the scopes that the client may have, but refuses a scope
# that it doesn't know.
app.config["OAUTH2_SCOPES_SUPPORTED"] = config["scopes"]
app.config["OAUTH2_TOKEN_EXPIRES_IN"] = "__main__.life"
server = AuthorizationServer(app, query_client=clients.get, save_token=save_token)
server.register_grant(ClientCredentials)
protected = ResourceProtector()
protected.register_token_validator(Validator())


@app.post("/token")
def token():
    return server.create_token_response()


@app.route("/api", methods=["GET", "POST"])
@protected()
def api():
    return jsonify(client_id=current_token.client_id, scope=current_token.scope)


@app.post("/clients")
def add():
    clients.update((c["client_id"], Client(c)) for c in request.get_json(force=True))
    return {}


@app.post("/revoke")
def revoke():
    tokens[request.get_data(as_text=True)].revoked = True
    return {}


class Handler(WSGIRequestHandler):
    disable_nagle_algorithm = True

    def log_request(self, *args):
        pass


logging.getLogger("werkzeug").setLevel(logging.ERROR)
httpd = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Handler)
httpd.socket.listen(socket.SOMAXCONN)
origin = f"http://127.0.0.1:{httpd.server_port}"
urls = {"issuer": origin, "token": origin + "/token", "api": origin + "/api", "admin": origin}
server.register_client_auth_method(Assertion.CLIENT_AUTH_METHOD, Assertion(urls["token"]))
threading.Thread(target=httpd.serve_forever, daemon=True).start()
print(json.dumps(urls), flush=True)

sys.stdin.read()
os._exit(0)
