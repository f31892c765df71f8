"""The paths below /api that a probe may use, with Squidex's checks and its JSON errors."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandbox.squidex import forms, oauth, tokens, wire
from sandbox.squidex.directory import split
from sandbox.squidex.oauth import fail

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.squidex import keys
    from sandbox.squidex.directory import App
    from sandbox.squidex.world import World

VERSION = "7.24.0.0"

_LINKS = {
    400: "rfc7231#section-6.5.1",
    401: "rfc7235#section-3.1",
    403: "rfc7231#section-6.5.3",
    404: "rfc7231#section-6.5.4",
    406: "rfc7231#section-6.5.6",
    408: "rfc7231#section-6.5.7",
    409: "rfc7231#section-6.5.8",
    410: "rfc7231#section-6.5.9",
    412: "rfc7231#section-6.5.10",
    415: "rfc7231#section-6.5.13",
    422: "rfc4918#section-11.2",
    500: "rfc7231#section-6.6.1",
}
"""The sections that Squidex's errors link to; other statuses have no link."""

_LANGUAGES = (
    ("de", "German", "Deutsch"),
    ("en", "English", "English"),
    ("fr", "French", "français, langue française"),
    ("it", "Italian", "italiano"),
    ("nl", "Dutch", "Nederlands, Vlaams"),
    ("pt", "Portuguese", "português"),
    ("zh", "Chinese", "中文 (Zhōngwén), 汉语, 漢語"),
)
"""Some of Squidex's languages: the real list has 184, and no probe reads it."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends the request; without claims it is nobody."""

    claims: Mapping[str, Any] | None
    refusal: wire.Reply
    """What nobody is told where somebody is required."""

    @property
    def client_id(self) -> str | None:
        """The client the token was issued to."""
        client_id = (self.claims or {}).get("client_id")
        return client_id if isinstance(client_id, str) else None

    @property
    def is_admin(self) -> bool:
        """Tell whether the token itself carries the permission for everything."""
        return self.claims is not None and self.claims.get("urn:squidex:permissions") == "squidex.*"


def answer(request: wire.Request, world: World, key: keys.SigningKey) -> wire.Reply:
    """Return what the API says to `request`, accepting tokens signed with `key`."""
    status = forms.parse(request.query).get("error")
    if len(status) == 3 and status.isdecimal() and 400 <= int(status) < 600:
        return error(int(status))
    parts = [part.lower() for part in request.path.strip("/").split("/")]
    known = {"apps": (1, 2), "languages": (1,), "ping": (1, 2), "info": (1,)}
    name, depth = parts[1] if len(parts) > 1 else "", len(parts) - 1
    if depth not in known.get(name, ()) or "//" in request.path:
        return error(404)
    # Routing comes before authentication: HEAD is 405 whatever the token.
    if request.method != "GET":
        return error(405, (("Allow", "GET"),))
    if name == "info":
        return wire.api_json(200, {"version": VERSION})
    if name == "ping" and depth == 1:
        return wire.Reply(204)
    caller = identify(request, world, key)
    # The ping of an app lets nobody in and looks at permissions later.
    if caller.claims is None and name != "ping":
        return caller.refusal
    if name == "languages":
        return _languages()
    if depth == 1:
        return wire.api_json(200, [_app_document(app) for app in _visible_apps(world, caller)])
    app = world.directory.app(request.path.strip("/").split("/")[2])
    return _app(world, caller, app, ping=name == "ping")


def identify(request: wire.Request, world: World, key: keys.SigningKey) -> Caller:
    """Return the caller the request's token stands for."""
    if _has_api_key(request):
        # The API key's handler takes over, and no key is known here: the bearer token is not even read.
        return Caller(None, error(401))
    token = _token(request)
    if not token:
        return Caller(None, error(401, (*wire.NO_STORE, oauth.challenge("Bearer", {}))))
    try:
        claims = tokens.validate(token, signing_keys=(key,), issuer=world.issuer, now=world.now())
    except tokens.TokenRejectedError as rejected:
        document = fail("invalid_token", rejected.code).document
        return Caller(None, error(401, (*wire.NO_STORE, oauth.challenge("Bearer", document))))
    return Caller(claims, error(401))


def error(status: int, headers: tuple[tuple[str, str], ...] = (), message: str = "") -> wire.Reply:
    """Return one of Squidex's errors."""
    link = _LINKS.get(status)
    document = {
        "message": message,
        "errorCode": None,
        "traceId": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00",
        "type": None if link is None else f"https://www.rfc-editor.org/rfc/{link}",
        "details": None,
        "statusCode": status,
    }
    return wire.api_json(status, document, headers)


def app_in(path: str) -> str | None:
    """Return the app that a path below /api names, for counts."""
    parts = path.strip("/").split("/")
    return parts[2] if len(parts) > 2 and parts[1].lower() in ("apps", "ping") else None


def _app(world: World, caller: Caller, app: App | None, *, ping: bool) -> wire.Reply:
    if app is None:
        return error(404)
    role = "Owner" if caller.is_admin else world.directory.role_in(app, caller.client_id)
    if not role:
        # Without any permission in the app it is hidden: 404 and not 403.
        return error(404) if caller.claims is not None else error(401, message="Unauthorized")
    if not ping:
        return wire.api_json(200, _app_document(app), (("X-AppId", app.id),))
    if role == "Owner":
        return wire.Reply(204, (("X-AppId", app.id),))
    return error(403, (("X-AppId", app.id),), message="Forbidden")


def _visible_apps(world: World, caller: Caller) -> list[App]:
    apps = [app for app in world.directory.apps() if not app.deleted]
    if caller.is_admin:
        return apps
    own = split(caller.client_id or "")[0]
    return [app for app in apps if app.name == own and world.directory.role_in(app, caller.client_id)]


def _app_document(app: App) -> dict[str, Any]:
    return {
        "id": app.id,
        "name": app.name,
        "label": None,
        "description": None,
        "version": 1,
        "created": "2026-01-01T00:00:00Z",
        "lastModified": "2026-01-01T00:00:00Z",
        "teamId": None,
        "permissions": [],
        "canAccessApi": True,
        "canAccessContent": True,
        "roleName": None,
        "roleProperties": {},
        "_links": {},
    }


def _languages() -> wire.Reply:
    return wire.api_json(
        200,
        [{"iso2Code": code, "englishName": english, "nativeName": native} for code, english, native in _LANGUAGES],
    )


def _has_api_key(request: wire.Request) -> bool:
    header = request.headers.get("Authorization", "")
    if header.lower().startswith("apikey ") and header[len("apikey ") :].strip():
        return True
    named = (request.headers.get("ApiKey", ""), request.headers.get("X-ApiKey", ""))
    return any(value.strip() for value in (*named, forms.parse(request.query).get("api_key")))


def _token(request: wire.Request) -> str:
    """Return the token from the header, the form or the query, where OpenIddict looks in this order."""
    header = request.headers.get("Authorization", "")
    token = forms.bearer_token(header)
    if not token and forms.is_form(request.headers.get("Content-Type", "")):
        token = forms.parse(request.body.decode("utf-8", "replace")).get("access_token")
    return token or forms.parse(request.query).get("access_token")
