"""The token endpoint: OpenIddict's pipeline, check by check.

Each check looks at one thing and returns a Failure or None; `CHECKS` holds them in the order in which
OpenIddict runs them, which decides what a request with several mistakes is told. An unknown scope, for
instance, is reported even when the secret is wrong as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sandbox.squidex import forms, oauth, tokens, wire
from sandbox.squidex.oauth import Failure, fail

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox.squidex import keys
    from sandbox.squidex.directory import Client
    from sandbox.squidex.world import World

CLIENT_CREDENTIALS = "client_credentials"
AUTHORIZATION_CODE = "authorization_code"
GRANT_TYPES = frozenset({CLIENT_CREDENTIALS, "implicit", AUTHORIZATION_CODE})
SCOPES = frozenset({"openid", "email", "profile", "roles", "squidex-api", "permissions"})
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request with its parameters, as the checks see it."""

    parameters: forms.Parameters
    world: World

    def get(self, name: str) -> str:
        """Return a parameter, or nothing."""
        return self.parameters.get(name)

    @property
    def client(self) -> Client | None:
        """The client the request names, if there is one."""
        return self.world.directory.client(self.get("client_id"))


def answer(request: wire.Request, world: World, key: keys.SigningKey, twist: tokens.Twist | None = None) -> wire.Reply:
    """Return what the token endpoint says to `request`, signing with `key`."""
    parameters = read_parameters(request)
    if isinstance(parameters, wire.Reply):
        return parameters
    if isinstance(parameters, Failure):
        return _refusal(parameters, world)
    attempt = Attempt(parameters, world)
    for check in CHECKS:
        failure = check(attempt)
        if failure is not None:
            return _refusal(failure, world)
    return _tokens(attempt, key, twist)


def read_parameters(request: wire.Request, *, basic: bool = True) -> forms.Parameters | Failure | wire.Reply:
    """Return the parameters of a form post, or why they cannot be read.

    With `basic` the credentials of a Basic header are put in.
    """
    if request.method != "POST":
        return fail("invalid_request", "ID2084")
    content_type = request.headers.get("Content-Type", "")
    if not content_type:
        return fail("invalid_request", "ID2081", "Content-Type")
    if not forms.is_form(content_type):
        return fail("invalid_request", "ID2082", "Content-Type")
    try:
        parameters = forms.parse(request.body.decode("utf-8", "replace"))
    except forms.FormTooLargeError:
        # ASP.NET throws and nobody catches it.
        return wire.Reply(500)
    return with_basic(request, parameters) if basic else parameters


def with_basic(request: wire.Request, parameters: forms.Parameters) -> forms.Parameters | Failure:
    """Return the parameters with the credentials of a Basic header, which may come in one place only."""
    header = request.headers.get("Authorization", "")
    if not header.lower().startswith("basic "):
        return parameters
    if parameters.get("client_secret") or parameters.get("client_assertion"):
        return fail("invalid_request", "ID2087")
    try:
        credentials = forms.basic_credentials(header)
    except forms.BadCredentialsError:
        return fail("invalid_request", "ID2055")
    return parameters if credentials is None else parameters.with_credentials(*credentials)


def _grant_type(attempt: Attempt) -> Failure | None:
    grant_type = attempt.get("grant_type")
    if not grant_type:
        return fail("invalid_request", "ID2029", "grant_type")
    if grant_type not in GRANT_TYPES:
        return fail("unsupported_grant_type", "ID2032", "grant_type")
    if "offline_access" in attempt.parameters.scopes():
        return fail("invalid_request", "ID2035", "offline_access")
    return None


def _client_id(attempt: Attempt) -> Failure | None:
    if attempt.get("grant_type") not in (CLIENT_CREDENTIALS, AUTHORIZATION_CODE):
        return None
    if attempt.get("client_id") or attempt.get("client_assertion"):
        return None
    return fail("invalid_request", "ID2029", "client_id")


def _code(attempt: Attempt) -> Failure | None:
    if attempt.get("grant_type") == AUTHORIZATION_CODE and not attempt.get("code"):
        return fail("invalid_request", "ID2029", "code")
    return None


def assertion_parameters(attempt: Attempt) -> Failure | None:
    """Refuse an assertion without its type and the reverse, and one next to a secret."""
    assertion, kind = attempt.get("client_assertion"), attempt.get("client_assertion_type")
    if assertion and not kind:
        return fail("invalid_request", "ID2037", "client_assertion_type", "client_assertion")
    if kind and not assertion:
        return fail("invalid_request", "ID2037", "client_assertion", "client_assertion_type")
    if assertion and attempt.get("client_secret"):
        return fail("invalid_request", "ID2087")
    if kind and kind != JWT_BEARER:
        return fail("invalid_client", "ID2032", "client_assertion_type")
    return None


def _secret_present(attempt: Attempt) -> Failure | None:
    if attempt.get("grant_type") != CLIENT_CREDENTIALS:
        return None
    if attempt.get("client_assertion") or attempt.get("client_secret"):
        return None
    return fail("invalid_request", "ID2057", "client_secret", "client_assertion")


def _scope_with_code(attempt: Attempt) -> Failure | None:
    if attempt.get("grant_type") == AUTHORIZATION_CODE and attempt.get("scope"):
        return fail("invalid_request", "ID2074", "scope")
    return None


def _scopes(attempt: Attempt) -> Failure | None:
    if SCOPES.issuperset(attempt.parameters.scopes()):
        return None
    return fail("invalid_scope", "ID2052", "scope")


def _audience(attempt: Attempt) -> Failure | None:
    # OpenIddict 7 knows the parameter for token exchange only.
    if attempt.parameters.all("audience"):
        return fail("invalid_request", "ID2074", "audience")
    return None


def _resource(attempt: Attempt) -> Failure | None:
    resources = attempt.parameters.all("resource")
    if any(not urlsplit(resource).scheme for resource in resources):
        return fail("invalid_request", "ID2030", "resource")
    # Squidex registers none, so OpenIddict 7 finds every one invalid.
    return fail("invalid_target", "ID2190", "resource") if resources else None


def _assertion(attempt: Attempt) -> Failure | None:
    # No client of Squidex has keys, so no assertion can be good.
    return fail("invalid_client", "ID2004") if attempt.get("client_assertion") else None


def known_client(attempt: Attempt) -> Failure | None:
    """Refuse a request that names no client, or one that does not exist."""
    if not attempt.get("client_id"):
        return fail("invalid_client", "ID2029", "client_id")
    return None if attempt.client else fail("invalid_client", "ID2052", "client_id")


def client_type(attempt: Attempt) -> Failure | None:
    """Refuse a public client that shows a secret, and a confidential one that shows none."""
    client, secret = attempt.client, attempt.get("client_secret")
    if client is not None and client.is_public:
        if attempt.get("grant_type") == CLIENT_CREDENTIALS:
            return fail("unauthorized_client", "ID2043", "grant_type")
        return fail("invalid_client", "ID2053", "client_secret") if secret else None
    return None if secret else fail("invalid_client", "ID2054", "client_secret")


def client_secret(attempt: Attempt) -> Failure | None:
    """Refuse a secret that differs in any way: Squidex compares them as they are."""
    client = attempt.client
    if client is None or client.is_public or client.secret == attempt.get("client_secret"):
        return None
    return fail("invalid_client", "ID2055")


def _authorization_code(attempt: Attempt) -> Failure | None:
    # The stand-in never issues a code.
    if attempt.get("grant_type") == AUTHORIZATION_CODE:
        return fail("invalid_grant", "ID2001")
    return None


def _grant_permission(attempt: Attempt) -> Failure | None:
    if attempt.get("grant_type") != CLIENT_CREDENTIALS:
        return fail("unauthorized_client", "ID2064")
    return None


CHECKS: tuple[Callable[[Attempt], Failure | None], ...] = (
    _grant_type,
    _client_id,
    _code,
    assertion_parameters,
    _secret_present,
    _scope_with_code,
    _scopes,
    _audience,
    _resource,
    # Only now is the client looked up.
    _assertion,
    known_client,
    client_type,
    client_secret,
    _authorization_code,
    _grant_permission,
)


def _refusal(failure: Failure, world: World) -> wire.Reply:
    if world.identityserver4:
        return oauth.identityserver4_reply(failure)
    return oauth.reply(failure, no_store=True)


def _tokens(attempt: Attempt, key: keys.SigningKey, twist: tokens.Twist | None) -> wire.Reply:
    world, client = attempt.world, attempt.client
    assert client is not None, "known_client has seen it"
    if twist is not None and twist.key is not None:
        key = world.keys.get(twist.key)
    grant = tokens.Grant(
        client=client,
        presented_id=attempt.get("client_id"),
        scopes=attempt.parameters.scopes(),
        issuer=world.issuer,
        now=world.now(),
        lifetime=world.lifetime,
    )
    access = tokens.access_token(grant, key, twist)
    # `exp` has no fraction, the clock has: rounding what is left gives the lifetime or a second less.
    expires_in = int(int(grant.now) + grant.lifetime - grant.now + 0.5)
    document: dict[str, Any] = {"access_token": access, "token_type": "Bearer"}
    if expires_in > 0:
        document["expires_in"] = expires_in
    if "openid" in grant.scopes:
        document["id_token"] = tokens.id_token(grant, key, access)
    if grant.scopes:
        document["scope"] = " ".join(grant.scopes)
    return wire.oauth_json(200, document, wire.NO_STORE, chunked=True)
