"""Which endpoint a path belongs to, and what that endpoint answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandbox.squidex import api, directory, exchange, forms, identity, tokens, wire

if TYPE_CHECKING:
    from sandbox.squidex import keys
    from sandbox.squidex.world import World

_IDENTITY = {
    f"{identity.PREFIX}/connect/token": "token",
    f"{identity.PREFIX}/.well-known/jwks": "jwks",
    f"{identity.PREFIX}/.well-known/openid-configuration": "discovery",
    f"{identity.PREFIX}/connect/introspect": "introspection",
    f"{identity.PREFIX}/connect/userinfo": "userinfo",
    f"{identity.PREFIX}/connect/authorize": "authorize",
}
_HEALTH = frozenset({"/healthz", "/readiness", "/background-healthz"})

_LONGEST_ID = 200


def classify(path: str) -> str:
    """Return the endpoint's name. Case and one trailing slash do not matter, a double slash does."""
    plain = path.lower()
    if len(plain) > 1:
        plain = plain.removesuffix("/")
    if plain in _IDENTITY:
        return _IDENTITY[plain]
    if plain in _HEALTH:
        return "health"
    if plain == "/api" or plain.startswith("/api/"):
        parts = plain.split("/")[2:]
        probe = parts == ["languages"] or (len(parts) == 2 and parts[0] == "apps" and parts[1] != "")
        return "probe" if probe else "api"
    return "other"


def client_named(endpoint: str, request: wire.Request) -> str | None:
    """Return the client a request is about, as far as it says so: for counts and faults, not for trust."""
    header = request.headers.get("Authorization", "")
    if endpoint == "token":
        try:
            basic = forms.basic_credentials(header)
            named = basic[0] if basic else forms.parse(request.body.decode("utf-8", "replace")).get("client_id")
        except (forms.BadCredentialsError, forms.FormTooLargeError):
            return None
        return named[:_LONGEST_ID] or None
    token = forms.bearer_token(header)
    return tokens.client_of(token) if token else None


def manner(request: wire.Request) -> tuple[str, list[str], list[str]]:
    """Return how a form was sent: content type, header names, parameter names; no values."""
    try:
        names = list(forms.parse(request.body.decode("utf-8", "replace")).values)
    except forms.FormTooLargeError:
        names = []
    return request.headers.get("Content-Type", ""), list(request.headers), names[:100]


def app_named(endpoint: str, request: wire.Request) -> str | None:
    """Return the app a request is about."""
    return api.app_in(request.path) if endpoint in ("probe", "api") else None


def answer(endpoint: str, request: wire.Request, world: World, twist: tokens.Twist | None = None) -> wire.Reply:
    """Return the true answer of an endpoint."""
    key: keys.SigningKey = world.keys.next()
    match endpoint:
        case "token":
            return exchange.answer(request, world, key, twist)
        case "jwks":
            return identity.jwks(request, key)
        case "discovery":
            return identity.discovery(request, world)
        case "introspection":
            return identity.introspection(request, world, key)
        case "userinfo":
            return identity.userinfo(request, world, key)
        case "authorize":
            return identity.authorization(request, world)
        case "probe" | "api":
            return api.answer(request, world, key)
        case "health":
            return _health()
        case _:
            return page(request, world)


def page(request: wire.Request, world: World) -> wire.Reply:
    """Return what answers where nothing else does: Squidex's web page, or nothing at all."""
    if world.web_page and request.method in ("GET", "HEAD"):
        return wire.html(200)
    return wire.NOT_FOUND


def same_client(left: str | None) -> str | None:
    """Return the spelling under which faults name a client."""
    return None if left is None else directory.canonical(left)


def _health() -> wire.Reply:
    headers = (
        ("Content-Type", "application/json"),
        ("Cache-Control", "no-store, no-cache"),
        ("Pragma", "no-cache"),
        ("Expires", wire.EPOCH),
    )
    body = b'{"entries":{},"status":"Healthy","totalDuration":"00:00:00.0001000"}'
    return wire.Reply(200, headers, body, chunked=True)
