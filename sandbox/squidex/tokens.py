"""Issuing and validating tokens, claim for claim as OpenIddict does it.

Validation keeps IdentityModel's order (signature, issuer, type, lifetime), because the error a client
sees depends on it: a token with an unknown key id *and* a wrong issuer is reported for its issuer.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sandbox.squidex import keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.squidex.directory import Client

ACCESS_TOKEN_TYPES = frozenset({"at+jwt", "application/at+jwt"})
API_SCOPE = "squidex-api"
ID_TOKEN_SECONDS = 20 * 60

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\Z")


class TokenRejectedError(Exception):
    """The token is not accepted; `code` is the id of OpenIddict's message."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Twist:
    """How a fault bends the tokens that are issued."""

    claims: Mapping[str, Any] = field(default_factory=dict)
    """Claims to set, or with None to leave out."""
    expires_in: float | None = None
    """Seconds until `exp`, where they differ from what the answer says in `expires_in`."""
    opaque: bool = False
    key: str | None = None
    """Name of the key to sign with: a server that does not accept its own tokens."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What is needed to issue a token."""

    client: Client
    presented_id: str
    scopes: tuple[str, ...]
    issuer: str
    now: float
    lifetime: int


def access_token(grant: Grant, key: keys.SigningKey, twist: Twist | None = None) -> str:
    """Return a signed access token."""
    issued = int(grant.now)
    claims: dict[str, Any] = {"iss": grant.issuer, "exp": issued + grant.lifetime, "iat": issued}
    if API_SCOPE in grant.scopes:
        claims["aud"] = f"scp:{API_SCOPE}"
    if grant.scopes:
        claims["scope"] = " ".join(grant.scopes)
    claims["jti"] = str(uuid.uuid4())
    claims["sub"] = grant.presented_id
    claims |= grant.client.extra_claims()
    claims["oi_prst"] = grant.presented_id
    claims["client_id"] = grant.presented_id
    claims["oi_tkn_id"] = str(uuid.uuid4())
    if twist is None:
        return _encode(claims, "at+jwt", key)
    return _twisted(claims, key, twist, grant.now)


def id_token(grant: Grant, key: keys.SigningKey, access: str) -> str:
    """Return the id token that comes along when `openid` is among the scopes."""
    issued = int(grant.now)
    digest = hashlib.sha256(access.encode()).digest()
    claims: dict[str, Any] = {
        "iss": grant.issuer,
        "exp": issued + ID_TOKEN_SECONDS,
        "iat": issued,
        "aud": grant.presented_id,
        "sub": grant.presented_id,
    }
    claims |= grant.client.identity_claims(grant.scopes)
    claims["azp"] = grant.presented_id
    claims["at_hash"] = keys.b64url(digest[:16])
    claims["oi_tkn_id"] = str(uuid.uuid4())
    return _encode(claims, "JWT", key)


def validate(
    token: str,
    *,
    signing_keys: tuple[keys.SigningKey, ...],
    issuer: str,
    now: float,
    types: frozenset[str] | None = ACCESS_TOKEN_TYPES,
    type_code: str = "ID2089",
) -> dict[str, Any]:
    """Return the claims of a token this server accepts; raises TokenRejectedError.

    With `types` None every type of token is accepted, as at the introspection endpoint.
    """
    header, claims, signature, signed = _parse(token)
    issuer_ok = claims.get("iss") in _spellings(issuer)
    _check_signature(header, signature, signed, signing_keys, issuer_ok=issuer_ok)
    if not issuer_ok:
        raise TokenRejectedError("ID2088")
    if types is not None and str(header.get("typ", "")).lower() not in types:
        raise TokenRejectedError(type_code)
    expires = claims.get("exp")
    # No clock skew, and a token without `exp` never expires: both are OpenIddict's defaults.
    if isinstance(expires, int | float) and expires < now:
        raise TokenRejectedError("ID2019")
    return claims


def client_of(token: str) -> str | None:
    """Return the client a token says it is for, without checking anything: for counts and faults."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(keys.b64url_decode(parts[1]))
    except (ValueError, RecursionError):
        return None
    client = claims.get("client_id") if isinstance(claims, dict) else None
    return client if isinstance(client, str) else None


def _encode(claims: Mapping[str, Any], typ: str, key: keys.SigningKey) -> str:
    payload = keys.b64url(json.dumps(claims, separators=(",", ":"), ensure_ascii=False).encode())
    signed = f"{key.headers[typ]}.{payload}"
    return f"{signed}.{keys.b64url(key.sign(signed.encode()))}"


def _twisted(claims: dict[str, Any], key: keys.SigningKey, twist: Twist, now: float) -> str:
    if twist.opaque:
        return keys.b64url(uuid.uuid4().bytes + uuid.uuid4().bytes)
    if twist.expires_in is not None:
        claims["exp"] = int(now + twist.expires_in)
    claims |= twist.claims
    return _encode({name: value for name, value in claims.items() if value is not None}, "at+jwt", key)


def _parse(token: str) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    if not _COMPACT.match(token):
        raise TokenRejectedError("ID2004")
    head, payload, tail = token.split(".")
    try:
        header = json.loads(keys.b64url_decode(head))
        claims = json.loads(keys.b64url_decode(payload))
        signature = keys.b64url_decode(tail) if tail else b""
    except (ValueError, RecursionError):
        raise TokenRejectedError("ID2004") from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise TokenRejectedError("ID2004")
    return header, claims, signature, f"{head}.{payload}".encode()


def _check_signature(
    header: Mapping[str, Any],
    signature: bytes,
    signed: bytes,
    signing_keys: tuple[keys.SigningKey, ...],
    *,
    issuer_ok: bool,
) -> None:
    if not signature:
        raise TokenRejectedError("ID2091")
    kid = header.get("kid")
    matching = tuple(key for key in signing_keys if key.kid == kid)
    # A key id that matches nothing does not end it: IdentityModel then tries every key it has.
    candidates = matching or signing_keys
    if header.get("alg") == "RS256" and any(key.verifies(signature, signed) for key in candidates):
        return
    if matching:
        raise TokenRejectedError("ID2091")
    if kid is not None and not issuer_ok:
        raise TokenRejectedError("ID2088")
    raise TokenRejectedError("ID2090")


def _spellings(issuer: str) -> tuple[str, ...]:
    """Return the issuer and, where its path is only a slash, the issuer without that slash."""
    bare = issuer.removesuffix("/")
    if issuer.endswith("/") and bare.count("/") == 2:
        return (issuer, bare)
    return (issuer,)
