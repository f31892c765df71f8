"""The other endpoints below /identity-server: keys, discovery, introspection, user info, authorization."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sandbox.squidex import exchange, forms, oauth, tokens, wire
from sandbox.squidex.oauth import Failure, fail

if TYPE_CHECKING:
    from sandbox.squidex import keys
    from sandbox.squidex.world import World

PREFIX = "/identity-server"

_GONE_ACCOUNT = {
    "error": "invalid_token",
    "error_description": "The specified access token is bound to an account that no longer exists.",
}

_CAPABILITIES: dict[str, Any] = {
    "grant_types_supported": ["client_credentials", "implicit", "authorization_code"],
    "response_types_supported": ["id_token", "id_token token", "token", "code"],
    "response_modes_supported": ["query", "form_post", "fragment"],
    "scopes_supported": ["openid", "email", "profile", "roles", "squidex-api", "permissions"],
    "claims_supported": ["aud", "exp", "iat", "iss", "sub"],
    "id_token_signing_alg_values_supported": ["RS256"],
    "code_challenge_methods_supported": ["plain", "S256"],
    "subject_types_supported": ["public"],
    "prompt_values_supported": ["consent", "login", "none", "select_account"],
    "token_endpoint_auth_methods_supported": [
        "client_secret_post",
        "private_key_jwt",
        "client_secret_basic",
    ],
    "introspection_endpoint_auth_methods_supported": [
        "client_secret_post",
        "private_key_jwt",
        "client_secret_basic",
    ],
    "require_pushed_authorization_requests": False,
    "tls_client_certificate_bound_access_tokens": False,
    "claims_parameter_supported": False,
    "request_parameter_supported": False,
    "request_uri_parameter_supported": False,
    "authorization_response_iss_parameter_supported": True,
}


def jwks(request: wire.Request, key: keys.SigningKey) -> wire.Reply:
    """Return the one key of the replica that was asked."""
    if request.method != "GET":
        return oauth.reply(fail("invalid_request", "ID2084"))
    return wire.oauth_json(200, {"keys": [key.jwk()]})


def discovery(request: wire.Request, world: World) -> wire.Reply:
    """Return the discovery document: its endpoints follow the request's host, its issuer does not."""
    if request.method != "GET":
        return oauth.reply(fail("invalid_request", "ID2084"))
    root = f"{request.base_url}{PREFIX}"
    document = {
        "issuer": world.issuer,
        "authorization_endpoint": f"{root}/connect/authorize",
        "token_endpoint": f"{root}/connect/token",
        "introspection_endpoint": f"{root}/connect/introspect",
        "end_session_endpoint": f"{root}/connect/logout",
        "userinfo_endpoint": f"{root}/connect/userinfo",
        "jwks_uri": f"{root}/.well-known/jwks",
        **_CAPABILITIES,
    }
    return wire.oauth_json(200, document)


def introspection(request: wire.Request, world: World, key: keys.SigningKey) -> wire.Reply:
    """Say that no client may introspect, once the client and the token have been found good."""
    parameters = _query_or_form(request)
    if not isinstance(parameters, forms.Parameters):
        return parameters if isinstance(parameters, wire.Reply) else oauth.reply(parameters)
    attempt = exchange.Attempt(parameters, world)
    if not attempt.get("token"):
        return oauth.reply(fail("invalid_request", "ID2029", "token"))
    if attempt.get("client_assertion"):
        failure = exchange.assertion_parameters(attempt) or fail("invalid_client", "ID2004")
        return oauth.reply(failure)
    for check in (
        exchange.assertion_parameters,
        exchange.known_client,
        exchange.client_type,
        exchange.client_secret,
    ):
        found = check(attempt)
        if found is not None:
            return oauth.reply(found)
    try:
        tokens.validate(attempt.get("token"), signing_keys=(key,), issuer=world.issuer, now=world.now(), types=None)
    except tokens.TokenRejectedError:
        # RFC 7662, section 2.2: a bad token is no error.
        return wire.oauth_json(200, {"active": False})
    return oauth.reply(fail("unauthorized_client", "ID2075"))


def userinfo(request: wire.Request, world: World, key: keys.SigningKey) -> wire.Reply:
    """Refuse every token: those of clients belong to no account."""
    parameters = _query_or_form(request, basic=False)
    if isinstance(parameters, wire.Reply):
        return parameters
    if isinstance(parameters, Failure):
        return wire.Reply(400, (oauth.challenge("Bearer", parameters.document),))
    token = forms.bearer_token(request.headers.get("Authorization", "")) or parameters.get("access_token")
    if not token:
        return wire.Reply(401, (oauth.challenge("Bearer", {}),))
    try:
        tokens.validate(token, signing_keys=(key,), issuer=world.issuer, now=world.now(), type_code="ID2008")
    except tokens.TokenRejectedError as error:
        document = fail("invalid_token", error.code).document
        return wire.Reply(401, (oauth.challenge("Bearer", document),))
    return wire.Reply(401, (oauth.challenge("Bearer", _GONE_ACCOUNT),))


def authorization(request: wire.Request, world: World) -> wire.Reply:
    """Send a browser to the login page, or say in plain text why not."""
    parameters = _query_or_form(request, basic=False)
    if isinstance(parameters, wire.Reply):
        return parameters
    failure = parameters if isinstance(parameters, Failure) else _authorization_failure(parameters, world)
    if failure is not None:
        lines = "".join(f"{name}:{value}\n" for name, value in failure.document.items())
        return wire.Reply(400, (("Content-Type", "text/plain;charset=UTF-8"), *wire.NO_STORE), lines.encode())
    back = quote(f"{request.path}?{request.query}", safe="")
    login = f"{request.base_url}{PREFIX}/account/login?ReturnUrl={back}"
    return wire.Reply(302, (("Location", login),))


def _authorization_failure(parameters: forms.Parameters, world: World) -> Failure | None:
    for name in ("client_id", "redirect_uri", "response_type"):
        if not parameters.get(name):
            return fail("invalid_request", "ID2029", name)
    client = world.directory.client(parameters.get("client_id"))
    if client is None:
        return fail("invalid_request", "ID2052", "client_id")
    return None if client.is_public else fail("unauthorized_client", "ID2046")


def _query_or_form(request: wire.Request, *, basic: bool = True) -> forms.Parameters | Failure | wire.Reply:
    """Return the parameters of a GET or a POST: these endpoints take both."""
    if request.method != "GET":
        return exchange.read_parameters(request, basic=basic)
    try:
        parameters = forms.parse(request.query)
    except forms.FormTooLargeError:
        return wire.Reply(500)
    return exchange.with_basic(request, parameters) if basic else parameters
