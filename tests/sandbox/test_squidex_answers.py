"""What the sources say Squidex and OpenIddict answer, beyond the recorded exchanges."""

from __future__ import annotations

import base64
import hashlib
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.squidex import keys, running
from tests.sandbox.squidex_client import (
    FORM,
    TOKEN_PATH,
    ask,
    ask_token,
    claims_of,
    header_of,
    probe,
    signed,
    token,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.squidex import Running

JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
USER = "5f0c1a2b3c4d5e6f70819203"
CLIENTS = {
    "demo:ci": "s3cr3t",
    "shop:web": "schlüssel",
    "root": "a+b/c=d e&f",
    "squidex-frontend": None,
    USER: "user-secret",
}


@pytest.fixture(scope="module")
def key() -> keys.SigningKey:
    return keys.generate()


@pytest.fixture(scope="module")
def squidex(key: keys.SigningKey) -> Iterator[Running]:
    with running(CLIENTS, key=key) as started:
        yield started


def post(squidex: Running, body: str, path: str = TOKEN_PATH, **headers: str) -> Any:
    return ask(squidex.url, "POST", path, headers=FORM | headers, body=body)


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


GOOD = "grant_type=client_credentials&client_id=demo:ci&client_secret=s3cr3t&scope=squidex-api"

REFUSALS = {
    "a repeated client_id counts as missing": (f"{GOOD}&client_id=demo:ci", 400, "invalid_request", "ID2029"),
    "a repeated client_secret counts as missing": (
        f"{GOOD}&client_secret=s3cr3t",
        400,
        "invalid_request",
        "ID2057",
    ),
    "a repeated grant_type counts as missing": (
        f"{GOOD}&grant_type=client_credentials",
        400,
        "invalid_request",
        "ID2029",
    ),
    "names of parameters are case-sensitive": (
        "Grant_Type=client_credentials",
        400,
        "invalid_request",
        "ID2029",
    ),
    "grant types are case-sensitive": ("grant_type=CLIENT_CREDENTIALS", 400, "unsupported_grant_type", "ID2032"),
    "refresh tokens are not supported": (
        "grant_type=refresh_token&refresh_token=x",
        400,
        "unsupported_grant_type",
        "ID2032",
    ),
    "a code grant needs a client": ("grant_type=authorization_code&code=x", 400, "invalid_request", "ID2029"),
    "a code grant needs a code": (
        "grant_type=authorization_code&client_id=demo:ci&client_secret=s3cr3t",
        400,
        "invalid_request",
        "ID2029",
    ),
    "a code grant takes no scope": (
        f"{GOOD}&code=x".replace("client_credentials", "authorization_code"),
        400,
        "invalid_request",
        "ID2074",
    ),
    "an unknown code is no good": (
        "grant_type=authorization_code&code=x&client_id=demo:ci&client_secret=s3cr3t",
        400,
        "invalid_grant",
        "ID2001",
    ),
    "implicit without a secret": ("grant_type=implicit&client_id=demo:ci", 401, "invalid_client", "ID2054"),
    "implicit without a client": ("grant_type=implicit", 401, "invalid_client", "ID2029"),
    "a public client may show no secret": (
        "grant_type=implicit&client_id=squidex-frontend&client_secret=x",
        401,
        "invalid_client",
        "ID2053",
    ),
    "an assertion needs its type": (
        "grant_type=client_credentials&client_id=demo:ci&client_assertion=x",
        400,
        "invalid_request",
        "ID2037",
    ),
    "an assertion next to a secret": (
        f"{GOOD}&client_assertion=x&client_assertion_type=y",
        400,
        "invalid_request",
        "ID2087",
    ),
    "an assertion of an unknown type": (
        "grant_type=client_credentials&client_id=demo:ci&client_assertion=x&client_assertion_type=y",
        401,
        "invalid_client",
        "ID2032",
    ),
    "no assertion is ever good": (
        "grant_type=client_credentials&client_id=demo:ci&client_assertion=x&client_assertion_type=" + JWT_BEARER,
        401,
        "invalid_client",
        "ID2004",
    ),
    "an unknown scope comes before a wrong secret": (
        "grant_type=client_credentials&client_id=demo:ci&client_secret=wrong&scope=nope",
        400,
        "invalid_scope",
        "ID2052",
    ),
    "a missing client comes before a missing secret": (
        "grant_type=client_credentials",
        400,
        "invalid_request",
        "ID2029",
    ),
    "scopes are separated by spaces only": (f"{GOOD},openid", 400, "invalid_scope", "ID2052"),
    "client ids are case-sensitive": (GOOD.replace("demo", "Demo"), 401, "invalid_client", "ID2052"),
    "secrets are case-sensitive": (GOOD.replace("s3cr3t", "S3CR3T"), 401, "invalid_client", "ID2055"),
    "an audience is for token exchange": (f"{GOOD}&audience=x", 400, "invalid_request", "ID2074"),
    "no resource is registered": (f"{GOOD}&resource=https://x.test/", 400, "invalid_target", "ID2190"),
}


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS)
def test_refuses(squidex: Running, case: tuple[str, int, str, str]) -> None:
    body, status, error, code = case
    answer = post(squidex, body)
    assert (answer.status, answer.json()["error"]) == (status, error)
    assert answer.json()["error_uri"].endswith(code)
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert answer.headers["cache-control"] == "no-store"


SCOPES = {
    "double spaces": ("squidex-api++openid", "squidex-api openid"),
    "the order of the request": ("openid+squidex-api", "openid squidex-api"),
    "each scope once": ("squidex-api+squidex-api", "squidex-api"),
    "every scope there is": (
        "email+profile+roles+permissions+squidex-api",
        "email profile roles permissions squidex-api",
    ),
    "a trailing space": ("squidex-api+", "squidex-api"),
}


@pytest.mark.parametrize(("sent", "granted"), SCOPES.values(), ids=SCOPES)
def test_echoes_scopes(squidex: Running, sent: str, granted: str) -> None:
    document = post(squidex, GOOD.replace("squidex-api", sent)).json()
    assert document["scope"] == granted
    assert claims_of(document["access_token"])["scope"] == granted
    assert ("id_token" in document) == ("openid" in granted)


def test_only_the_api_scope_makes_an_audience(squidex: Running) -> None:
    claims = claims_of(token(squidex.url, scope="permissions"))
    assert "aud" not in claims
    assert claims["scope"] == "permissions"


def test_a_repeated_scope_counts_as_none(squidex: Running) -> None:
    document = post(squidex, f"{GOOD}&scope=openid").json()
    assert "scope" not in document
    assert "aud" not in claims_of(document["access_token"])


ACCEPTED = {
    "upper-case path": (TOKEN_PATH.upper(), GOOD, {}),
    "an unknown parameter": (TOKEN_PATH, f"{GOOD}&foo=bar&foo=baz", {}),
    "the headers of the SDK": (TOKEN_PATH, GOOD, {"X-AuthRequest": "1", "X-AuthSource": "Client"}),
    "another scheme in Authorization": (TOKEN_PATH, GOOD, {"Authorization": "Bearer abc"}),
    "upper-case content type": (TOKEN_PATH, GOOD, {"Content-Type": FORM["Content-Type"].upper()}),
    "lower-case basic, id in the form as well": (
        TOKEN_PATH,
        "grant_type=client_credentials&client_id=other",
        {"Authorization": basic("demo%3Aci:s3cr3t").replace("Basic", "basic")},
    ),
    "any Accept header": (TOKEN_PATH, GOOD, {"Accept": "text/html"}),
    "a secret beyond ASCII": (
        TOKEN_PATH,
        "grant_type=client_credentials&client_id=shop~web&client_secret=schl%C3%BCssel",
        {},
    ),
}


@pytest.mark.parametrize(("path", "body", "headers"), ACCEPTED.values(), ids=ACCEPTED)
def test_gives_a_token(squidex: Running, path: str, body: str, headers: dict[str, str]) -> None:
    assert ask(squidex.url, "POST", path, headers=FORM | headers, body=body).status == 200


REQUESTS = {
    "HEAD": ("HEAD", {}, 400, "167", ""),
    "DELETE": ("DELETE", {}, 400, "167", "ID2084"),
    "OPTIONS": ("OPTIONS", {}, 400, "167", "ID2084"),
    "no content type": ("POST", {}, 400, "175", "ID2081"),
    "a Basic header without a colon": (
        "POST",
        FORM | {"Authorization": basic("demo")},
        400,
        "173",
        "ID2055",
    ),
    "text/plain": ("POST", {"Content-Type": "text/plain"}, 400, "175", "ID2082"),
}


@pytest.mark.parametrize(("method", "headers", "status", "length", "code"), REQUESTS.values(), ids=REQUESTS)
def test_refuses_the_form_of_a_request(
    squidex: Running, method: str, headers: dict[str, str], status: int, length: str, code: str
) -> None:
    body = GOOD.replace("&client_secret=s3cr3t", "") if method == "POST" else ""
    answer = ask(squidex.url, method, TOKEN_PATH, headers=headers, body=body)
    assert (answer.status, answer.headers["content-length"]) == (status, length)
    assert code in answer.text
    assert "www-authenticate" not in answer.headers


def test_past_the_limits_of_a_form_it_breaks(squidex: Running) -> None:
    assert post(squidex, "&".join(f"p{n}=1" for n in range(1025))).status == 500
    assert post(squidex, f"{GOOD}&foo={'x' * 4_200_000}").status == 500


def test_a_body_beyond_the_servers_limit_is_413(squidex: Running) -> None:
    assert post(squidex, "x" * 30_000_001).status == 413


def test_an_admin_token_reaches_every_app(squidex: Running) -> None:
    admin = token(squidex.url, client_id="root", client_secret="a+b/c=d e&f")
    assert claims_of(admin)["urn:squidex:permissions"] == "squidex.*"
    assert [probe(squidex.url, admin, f"/api/apps/{app}").status for app in ("demo", "shop", "nope")] == [
        200,
        200,
        404,
    ]
    assert [app["name"] for app in probe(squidex.url, admin, "/api/apps/").json()] == ["demo", "shop"]


def test_a_user_token_carries_the_users_secret_and_belongs_to_no_app(squidex: Running) -> None:
    bearer = token(squidex.url, client_id=USER, client_secret="user-secret")
    assert claims_of(bearer)["urn:squidex:clientSecret"] == "user-secret"
    assert probe(squidex.url, bearer).status == 404
    assert probe(squidex.url, bearer, "/api/languages/").status == 200


PATHS = {
    "its own app": ("/api/apps/demo", 200),
    "a trailing slash": ("/api/apps/demo/", 200),
    "upper-case path": ("/API/Apps/demo", 200),
    "app names are case-sensitive": ("/api/apps/Demo", 404),
    "another app": ("/api/apps/shop", 404),
    "no such app": ("/api/apps/nope", 404),
    "languages": ("/api/languages/", 200),
    "languages without the slash": ("/api/languages", 200),
    "the app's ping is not for editors": ("/api/ping/demo/", 403),
    "ping": ("/api/ping/", 204),
    "info": ("/api/info/", 200),
    "nothing there": ("/api/nope", 404),
    "the root of the api": ("/api", 404),
    "a double slash": ("/api//apps/demo", 404),
    "an error that was asked for": ("/api/apps/demo?error=410", 410),
}


@pytest.mark.parametrize(("path", "status"), PATHS.values(), ids=PATHS)
def test_answers_below_api(squidex: Running, path: str, status: int) -> None:
    answer = probe(squidex.url, token(squidex.url), path)
    assert answer.status == status
    assert "www-authenticate" not in answer.headers
    if status >= 400:
        document = answer.json()
        assert list(document) == ["message", "errorCode", "traceId", "type", "details", "statusCode"]
        assert document["statusCode"] == status
        assert document["message"] == ("Forbidden" if status == 403 else "")


def test_the_ping_of_an_app_does_not_challenge(squidex: Running) -> None:
    answer = probe(squidex.url, "abc", "/api/ping/demo/")
    assert (answer.status, answer.json()["message"]) == (401, "Unauthorized")
    assert "www-authenticate" not in answer.headers


def sent_as(where: str, bearer: str) -> tuple[str, dict[str, str]]:
    return {
        "lower-case scheme": ("/api/apps/demo", {"Authorization": f"bearer {bearer}"}),
        "in the query": (f"/api/apps/demo?access_token={bearer}", {}),
        "with an API key": ("/api/apps/demo", {"Authorization": f"Bearer {bearer}", "X-ApiKey": "demo:x"}),
        "with ApiKey": ("/api/apps/demo", {"Authorization": f"Bearer {bearer}", "ApiKey": "x"}),
        "with a key in the query": ("/api/apps/demo?api_key=x", {"Authorization": f"Bearer {bearer}"}),
        "two spaces": ("/api/apps/demo", {"Authorization": f"Bearer  {bearer}"}),
        "after another scheme": (f"/api/apps/demo?access_token={bearer}", {"Authorization": "Basic YTpi"}),
    }[where]


@pytest.mark.parametrize(
    ("where", "status", "challenge"),
    [
        ("lower-case scheme", 200, None),
        ("in the query", 200, None),
        ("after another scheme", 200, None),
        ("with an API key", 401, None),
        ("with ApiKey", 401, None),
        ("with a key in the query", 401, None),
        ("two spaces", 401, "ID2004"),
    ],
)
def test_looks_for_the_token(squidex: Running, where: str, status: int, challenge: str | None) -> None:
    path, headers = sent_as(where, token(squidex.url))
    answer = ask(squidex.url, "GET", path, headers=headers)
    assert answer.status == status
    assert (challenge or "") in answer.headers.get("www-authenticate", "")
    assert ("www-authenticate" in answer.headers) == (challenge is not None)


def test_takes_the_token_from_a_form(squidex: Running) -> None:
    body = f"access_token={token(squidex.url)}"
    assert ask(squidex.url, "GET", "/api/apps/demo", headers=FORM, body=body).status == 200


BENT = {
    "no key id, good signature": ({"kid": None}, {}, "same", 200, ""),
    "unknown key id, good signature": ({"kid": "x"}, {}, "same", 200, ""),
    "no key id, other key": ({"kid": None}, {}, "other", 401, "ID2090"),
    "unknown key id and other issuer": ({"kid": "x"}, {"iss": "https://x.test/"}, "other", 401, "ID2088"),
    "expired with an unknown key id": ({"kid": "x"}, {"exp": 1}, "other", 401, "ID2090"),
    "an issuer without its slash": ({}, {"iss": "bare"}, "same", 200, ""),
    "no issuer": ({}, {"iss": None}, "same", 401, "ID2088"),
    "an id token": ({"typ": "JWT"}, {}, "same", 401, "ID2089"),
    "no type": ({"typ": None}, {}, "same", 401, "ID2089"),
    "the long type": ({"typ": "application/at+jwt"}, {}, "same", 200, ""),
    "no expiry": ({}, {"exp": None}, "same", 200, ""),
    "another algorithm": ({"alg": "HS256"}, {}, "same", 401, "ID2091"),
    "an issue date ahead": ({}, {"iat": int(time.time()) + 9999, "nbf": int(time.time()) + 9999}, "same", 200, ""),
}


@pytest.mark.parametrize(("header", "claims", "by", "status", "code"), BENT.values(), ids=BENT)
def test_validates(
    squidex: Running,
    key: keys.SigningKey,
    header: dict[str, Any],
    claims: dict[str, Any],
    by: str,
    status: int,
    code: str,
) -> None:
    good = token(squidex.url)
    changed = header_of(good) | header, claims_of(good) | claims
    if claims.get("iss") == "bare":
        changed[1]["iss"] = squidex.url
    bent = [{name: value for name, value in part.items() if value is not None} for part in changed]
    answer = probe(squidex.url, signed(bent[0], bent[1], key if by == "same" else keys.generate()))
    assert answer.status == status
    assert code in answer.headers.get("www-authenticate", "")


def test_a_token_of_a_client_without_the_api_scope_is_accepted(squidex: Running) -> None:
    without = post(squidex, GOOD.replace("&scope=squidex-api", "")).json()["access_token"]
    assert probe(squidex.url, without).status == 200


INTROSPECTION = {
    "no token": ("client_id=demo:ci&client_secret=s3cr3t", 400, "ID2029"),
    "no client": ("token=x", 401, "ID2029"),
    "unknown client": ("token=x&client_id=nope&client_secret=x", 401, "ID2052"),
    "no secret": ("token=x&client_id=demo:ci", 401, "ID2054"),
    "wrong secret": ("token=x&client_id=demo:ci&client_secret=x", 401, "ID2055"),
    "a bad token is no error": ("token=x&client_id=demo:ci&client_secret=s3cr3t", 200, '"active": false'),
}


@pytest.mark.parametrize(("body", "status", "found"), INTROSPECTION.values(), ids=INTROSPECTION)
def test_introspects(squidex: Running, body: str, status: int, found: str) -> None:
    answer = post(squidex, body, "/identity-server/connect/introspect")
    assert answer.status == status
    assert found in answer.text
    assert "cache-control" not in answer.headers
    asked = ask(squidex.url, "GET", f"/identity-server/connect/introspect?{body}")
    assert (asked.status, asked.text) == (answer.status, answer.text)


def test_userinfo_refuses_clients(squidex: Running) -> None:
    path = "/identity-server/connect/userinfo"
    assert ask(squidex.url, "GET", path).headers["www-authenticate"] == "Bearer"
    assert "ID2004" in probe(squidex.url, "abc", path).headers["www-authenticate"]
    answer = probe(squidex.url, token(squidex.url), path)
    assert answer.status == 401
    assert "no longer exists" in answer.headers["www-authenticate"]
    assert answer.text == ""


def test_authorize_sends_browsers_to_the_login(squidex: Running) -> None:
    path = "/identity-server/connect/authorize"
    answer = ask(squidex.url, "GET", f"{path}?client_id=squidex-frontend&redirect_uri=x&response_type=code")
    assert answer.status == 302
    assert "/identity-server/account/login?ReturnUrl=" in answer.headers["location"]
    refused = ask(squidex.url, "GET", path)
    assert (refused.status, refused.headers["content-type"]) == (400, "text/plain;charset=UTF-8")


DOCUMENTS = {
    "keys, trailing slash": ("GET", "/identity-server/.well-known/jwks/", 200),
    "keys, upper case": ("GET", "/Identity-Server/.well-known/JWKS", 200),
    "keys, double slash": ("GET", "//identity-server/.well-known/jwks", 404),
    "keys, HEAD": ("HEAD", "/identity-server/.well-known/jwks", 400),
    "discovery, POST": ("POST", "/identity-server/.well-known/openid-configuration", 400),
    "no such document": ("GET", "/identity-server/.well-known/nope", 404),
    "health": ("GET", "/healthz", 200),
    "readiness": ("GET", "/readiness/", 200),
    "the web page is not there": ("GET", "/", 404),
}


@pytest.mark.parametrize(("method", "path", "status"), DOCUMENTS.values(), ids=DOCUMENTS)
def test_answers_elsewhere(squidex: Running, method: str, path: str, status: int) -> None:
    answer = ask(squidex.url, method, path)
    assert answer.status == status
    if status == 404:
        assert (answer.headers["content-length"], answer.text) == ("0", "")
        assert "content-type" not in answer.headers


def test_discovery_follows_the_host(squidex: Running) -> None:
    answer = ask(
        squidex.url,
        "GET",
        "/identity-server/.well-known/openid-configuration",
        headers={},
    )
    assert answer.json()["token_endpoint"] == f"{squidex.url}{TOKEN_PATH}"
    assert answer.json()["issuer"] == f"{squidex.url}/"


def test_a_key_is_published_as_tokens_name_it(squidex: Running) -> None:
    published = ask(squidex.url, "GET", "/identity-server/.well-known/jwks").json()["keys"]
    assert [key["kid"] for key in published] == [header_of(token(squidex.url))["kid"]]
    assert len(base64.urlsafe_b64decode(published[0]["kid"] + "==")) == 16


def test_an_id_token_is_no_access_token(squidex: Running) -> None:
    document = ask_token(squidex.url, scope="squidex-api openid").json()
    digest = hashlib.sha256(document["access_token"].encode()).digest()
    half = base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()
    assert claims_of(document["id_token"])["at_hash"] == half
    assert "ID2089" in probe(squidex.url, document["id_token"]).headers["www-authenticate"]


STRANGE = {
    "bytes that are no text": (b"POST /identity-server/connect/token HTTP/1.1", FORM, b"grant_type=%ff&\xff\xfe=%zz"),
    "an authorization beyond ASCII": (b"GET /api/apps/demo HTTP/1.1", {"Authorization": "Bearer \xff.\xfe.\xfd"}, b""),
    "a path beyond ASCII": (b"GET /api/apps/%ff%00%2f HTTP/1.1", {}, b""),
    "an error of very many digits": (b"GET /api/apps/demo?error=" + b"4" * 5000 + b" HTTP/1.1", {}, b""),
    "a token nested without end": (
        b"GET /api/apps/demo HTTP/1.1",
        {"Authorization": f"Bearer {'W1tb' * 5000}.{'W1tb' * 1000}.x"},
        b"",
    ),
    "a patch that is no text": (b"PATCH /_sandbox/state HTTP/1.1", {}, b"\xff\xfe"),
}


@pytest.mark.parametrize(("line", "headers", "body"), STRANGE.values(), ids=STRANGE)
def test_survives(squidex: Running, line: bytes, headers: dict[str, str], body: bytes) -> None:
    host, port = squidex.url.removeprefix("http://").split(":")
    lines = [f"{name}: {value}".encode("latin-1") for name, value in headers.items()]
    message = [line, b"Host: x", b"Connection: close", b"Content-Length: %d" % len(body), *lines, b"", body]
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"\r\n".join(message))
        status = int(connection.makefile("rb").readline().split()[1])
    assert 400 <= status < 500
