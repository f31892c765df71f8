"""Every recorded exchange, replayed against the stand-in: what differs is what changes from call to call."""

from __future__ import annotations

import base64
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from sandbox.squidex import keys, running
from tests.sandbox.squidex_client import Answer, ask, claims_of, header_of, signed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.squidex import Running

EXCHANGES = json.loads(
    (Path(__file__).parents[1] / "data" / "squidex-wire" / "exchanges.json").read_text(encoding="utf-8")
)
CLIENTS = {"demo:ci": "s3cr3t", "demo~ci": "s3cr3t", "root": "a+b/c=d e&f", "squidex-frontend": None}
RECORDED_URL = "http://127.0.0.1:5000"
OTHER_ISSUER = "https://cms.example.com/"
CHANGING_CLAIMS = {"iat", "exp", "jti", "oi_tkn_id", "at_hash"}
CHANGING_HEADERS = {"date", "server", "transfer-encoding"}


@pytest.fixture(scope="module")
def key() -> keys.SigningKey:
    return keys.generate()


@pytest.fixture(scope="module")
def squidex(key: keys.SigningKey) -> Iterator[Running]:
    # Its issuer is the recorded one, so that even the length of a token can be compared.
    with running(CLIENTS, key=key, issuer=f"{RECORDED_URL}/") as started:
        yield started


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange["id"])
def test_replays_the_recorded_exchange(exchange: dict[str, Any], squidex: Running, key: keys.SigningKey) -> None:
    if exchange["id"] == "D4":
        squidex.patch({"issuer": OTHER_ISSUER})
    try:
        answer = replay(exchange, squidex, key)
    finally:
        squidex.patch({"issuer": f"{RECORDED_URL}/"})
    recorded = exchange["response"]
    assert answer.status == recorded["status"]
    body, headers = expected(exchange, answer, squidex, key)
    assert answer.text == body
    assert {name: value for name, value in answer.headers.items() if name not in CHANGING_HEADERS} == headers
    for name, token in exchange.get("jwt", {}).items():
        assert_token(json.loads(answer.text)[name], token, key)


def replay(exchange: dict[str, Any], squidex: Running, key: keys.SigningKey) -> Answer:
    request = exchange["request"]
    headers, body = dict(request["headers"]), request["body"]
    if "<token: " in headers.get("Authorization", ""):
        headers["Authorization"] = f"Bearer {token_for(exchange['what'], squidex, key)}"
    if "<access_token of T1>" in body:
        body = body.replace("<access_token of T1>", quote(fresh_token(squidex)))
    return ask(squidex.url, request["method"], request["path"], headers=headers, body=body)


def fresh_token(squidex: Running) -> str:
    form = "grant_type=client_credentials&client_id=demo%3Aci&client_secret=s3cr3t&scope=squidex-api"
    answer = ask(
        squidex.url,
        "POST",
        "/identity-server/connect/token",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        body=form,
    )
    return str(json.loads(answer.text)["access_token"])


def token_for(what: str, squidex: Running, key: keys.SigningKey) -> str:
    token = fresh_token(squidex)
    header, claims = header_of(token), claims_of(token)
    match what:
        case "valid token" | "HEAD":
            return token
        case "expired":
            return signed(header, claims | {"exp": int(time.time()) - 1}, key)
        case "alg none":
            return signed(header | {"alg": "none"}, claims, None)
        case "other key":
            other = keys.generate()
            return signed(header | {"kid": other.kid}, claims, other)
        case "kid known, signature by another key":
            return signed(header, claims, keys.generate())
        case "issuer changed":
            return signed(header, claims | {"iss": OTHER_ISSUER}, key)
    raise AssertionError(f"no token for {what!r}")


def expected(
    exchange: dict[str, Any], answer: Answer, squidex: Running, key: keys.SigningKey
) -> tuple[str, dict[str, str]]:
    """Return the recorded body and headers with this run's values in place of those that change."""
    recorded = exchange["response"]
    body = recorded["body"]
    for port in ("5000", "5002"):
        # Only the discovery document names the host it was asked under; its issuer stays.
        body = body.replace(f'"http://127.0.0.1:{port}/identity', f'"{squidex.url}/identity')
    if exchange["id"] == "D1":
        document = json.loads(body)
        document["keys"][0] |= {"kid": key.kid, "n": key.modulus}
        body = json.dumps(document, indent=2)
    if answer.status == 200 and '"expires_in"' in body:
        seen = json.loads(answer.text)
        assert seen["expires_in"] in (2591999, 2592000)
        body = body.replace("2591999", str(seen["expires_in"]))
        for name in ("access_token", "id_token"):
            body = body.replace(f"<{name}>", seen.get(name, ""))
    for mark, pattern in (
        ("<trace>", r"00-[0-9a-f]{32}-[0-9a-f]{16}-00"),
        ("<guid>", r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
        ("<instant>", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"),
    ):
        for found in re.findall(pattern, answer.text)[: body.count(mark)]:
            body = body.replace(mark, found, 1)
    headers = {name.lower(): value for name, value in recorded["headers"].items()}
    if "content-length" in headers and len(body) != len(recorded["body"]):
        headers["content-length"] = str(len(body))
    if headers.get("x-appid") == "<guid>":
        headers["x-appid"] = json.loads(answer.text)["id"]
    return body, headers


def assert_token(token: str, recorded: dict[str, Any], key: keys.SigningKey) -> None:
    assert header_of(token) == recorded["header"] | {"kid": key.kid}
    assert list(header_of(token)) == list(recorded["header"])
    claims = claims_of(token)
    assert list(claims) == list(recorded["payload"])
    fixed = {name: value for name, value in recorded["payload"].items() if name not in CHANGING_CLAIMS}
    assert {name: value for name, value in claims.items() if name not in CHANGING_CLAIMS} == fixed
    assert claims["exp"] - claims["iat"] == recorded["payload"]["exp"] - recorded["payload"]["iat"]
    assert abs(claims["iat"] - time.time()) < 10
    for name in CHANGING_CLAIMS & set(claims):
        assert len(str(claims[name])) == len(str(recorded["payload"][name]))
    assert len(token) == recorded["length"]
    signature = base64.urlsafe_b64decode(token.rpartition(".")[2] + "==")
    assert key.verifies(signature, token.rpartition(".")[0].encode())
