"""Each switch of the stand-in's state, seen from a client."""

from __future__ import annotations

import email.utils
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.squidex import SwitchError, keys, running
from tests.sandbox.squidex_client import TOKEN_PATH, ask, ask_token, claims_of, header_of, probe, token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.squidex import Running

KEY = keys.generate()
JWKS = "/identity-server/.well-known/jwks"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running({"demo:ci": "s3cr3t", "demo:other": "x", "shop:web": "x", "root": "r00t"}, key=KEY) as started:
        yield started


@pytest.fixture
def squidex(server: Running) -> Running:
    server.reset()
    return server


def kid(squidex: Running) -> str:
    return str(ask(squidex.url, "GET", JWKS).json()["keys"][0]["kid"])


def challenge(squidex: Running, bearer: str) -> str:
    answer = probe(squidex.url, bearer)
    assert answer.status == 401
    return answer.headers["www-authenticate"]


def test_replaced_key(squidex: Running) -> None:
    old = token(squidex.url)
    squidex.patch({"key": "replace"})
    assert "ID2090" in challenge(squidex, old)
    new = token(squidex.url)
    assert header_of(new)["kid"] == kid(squidex) != KEY.kid
    assert probe(squidex.url, new).status == 200
    squidex.patch({"key": "first"})
    assert probe(squidex.url, old).status == 200
    assert "ID2090" in challenge(squidex, new)


def test_replacing_twice_makes_two_keys(squidex: Running) -> None:
    seen = {KEY.kid}
    for _ in range(2):
        squidex.patch({"key": "replace"})
        seen.add(kid(squidex))
    assert len(seen) == 3


def test_replicas_with_different_keys_take_turns(squidex: Running) -> None:
    old = token(squidex.url)
    squidex.patch({"replicas": ["first", "second"]})
    assert [probe(squidex.url, old).status for _ in range(4)] == [200, 401, 200, 401]
    assert [kid(squidex) == KEY.kid for _ in range(4)] == [True, False, True, False]
    squidex.patch({"replicas": ["second", "second", "first"]})
    assert [header_of(token(squidex.url))["kid"] == KEY.kid for _ in range(3)] == [False, False, True]


def test_changed_issuer(squidex: Running) -> None:
    old = token(squidex.url)
    squidex.patch({"issuer": "https://cms.example.com/"})
    assert "ID2088" in challenge(squidex, old)
    assert claims_of(token(squidex.url))["iss"] == "https://cms.example.com/"
    squidex.patch({"issuer": None})
    assert probe(squidex.url, old).status == 200


def test_shorter_lifetime(squidex: Running) -> None:
    squidex.patch({"lifetime": 600})
    document = ask_token(squidex.url).json()
    assert document["expires_in"] in (599, 600)
    claims = claims_of(document["access_token"])
    assert claims["exp"] - claims["iat"] == 600


def test_a_token_dies_when_the_servers_time_passes_its_expiry(squidex: Running) -> None:
    squidex.patch({"lifetime": 600})
    bearer = token(squidex.url)
    squidex.patch({"clockOffset": 590})
    assert probe(squidex.url, bearer).status == 200
    squidex.patch({"clockOffset": 602})
    assert "ID2019" in challenge(squidex, bearer)


def test_a_clock_that_is_off_shows_in_dates_and_tokens(squidex: Running) -> None:
    squidex.patch({"clockOffset": -86400})
    answer = ask_token(squidex.url)
    shown = email.utils.parsedate_to_datetime(answer.headers["date"]).timestamp()
    assert abs(shown - (time.time() - 86400)) < 5
    assert abs(claims_of(answer.json()["access_token"])["iat"] - shown) < 5


def test_a_deleted_client_gets_no_token_and_its_old_one_finds_nothing(squidex: Running) -> None:
    bearer = token(squidex.url)
    squidex.patch({"clients": {"demo~ci": None}})
    assert "ID2052" in ask_token(squidex.url).text
    assert probe(squidex.url, bearer).status == 404
    assert probe(squidex.url, bearer, "/api/languages/").status == 200


def test_a_client_that_is_created_again_brings_its_old_token_back(squidex: Running) -> None:
    bearer = token(squidex.url)
    squidex.patch({"clients": {"demo:ci": None}})
    squidex.patch({"clients": {"demo:ci": "new"}})
    assert probe(squidex.url, bearer).status == 200
    assert "ID2055" in ask_token(squidex.url).text
    assert ask_token(squidex.url, client_secret="new").status == 200


def test_a_client_can_become_public(squidex: Running) -> None:
    squidex.patch({"clients": {"demo:ci": {"public": True}}})
    assert "ID2043" in ask_token(squidex.url).text


def test_a_deleted_app(squidex: Running) -> None:
    bearer = token(squidex.url)
    squidex.patch({"apps": {"demo": {"deleted": True}}})
    assert probe(squidex.url, bearer).status == 404
    assert "ID2052" in ask_token(squidex.url).text
    squidex.patch({"apps": {"demo": {"deleted": False}}})
    assert probe(squidex.url, bearer).status == 200


def test_an_app_with_an_anonymous_client_takes_any_authentic_token(squidex: Running) -> None:
    foreign = token(squidex.url, client_id="shop:web", client_secret="x")
    own = token(squidex.url)
    squidex.patch({"apps": {"demo": {"anonymous": "Reader"}}, "clients": {"demo:ci": None}})
    assert probe(squidex.url, foreign).status == 200
    assert probe(squidex.url, own).status == 200
    assert "ID2004" in challenge(squidex, "abc")
    assert ask(squidex.url, "GET", "/api/apps/demo").status == 401
    squidex.patch({"apps": {"demo": {"anonymous": None}}})
    assert probe(squidex.url, foreign).status == 404


@pytest.mark.parametrize(
    ("role", "app", "ping"),
    [("Owner", 200, 204), ("Developer", 200, 403), ("Editor", 200, 403), ("Reader", 200, 403), ("", 404, 404)],
)
def test_roles(squidex: Running, role: str, app: int, ping: int) -> None:
    bearer = token(squidex.url)
    squidex.patch({"roles": {"demo:ci": role}})
    assert probe(squidex.url, bearer).status == app
    assert probe(squidex.url, bearer, "/api/ping/demo/").status == ping
    assert probe(squidex.url, bearer, "/api/languages/").status == 200


def test_base_path(squidex: Running) -> None:
    squidex.patch({"basePath": "/cms"})
    assert ask(squidex.url, "POST", TOKEN_PATH).status == 404
    document = ask_token(f"{squidex.url}", scope="openid")
    assert document.status == 404
    inside = ask(squidex.url, "GET", "/cms/identity-server/.well-known/openid-configuration").json()
    assert inside["issuer"] == f"{squidex.url}/cms/"
    assert inside["token_endpoint"] == f"{squidex.url}/cms{TOKEN_PATH}"
    assert ask(squidex.url, "GET", "/cms/api/ping/").status == 204
    assert ask(squidex.url, "GET", "/cmsx/api/ping/").status == 404


def test_web_page(squidex: Running) -> None:
    squidex.patch({"webPage": True, "basePath": "/cms"})
    answer = ask(squidex.url, "GET", "/api/apps/demo")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert ask(squidex.url, "POST", TOKEN_PATH).status == 404


def test_identityserver4(squidex: Running) -> None:
    squidex.patch({"identityServer4": True})
    answer = ask_token(squidex.url, client_secret="wrong")
    assert (answer.status, answer.text) == (400, '{"error":"invalid_client"}')
    assert "www-authenticate" not in answer.headers
    assert ask_token(squidex.url).status == 200


WRONG = {
    "an unknown switch": ({"foo": 1}, "unknown switch 'foo'; known: key, replicas, issuer"),
    "no object": ([], "must be a JSON object"),
    "a lifetime in words": ({"lifetime": "1h"}, "whole number of seconds"),
    "no lifetime at all": ({"lifetime": 0}, "at least 1"),
    "a clock in words": ({"clockOffset": "1h"}, "number of seconds"),
    "an issuer that is a number": ({"issuer": 1}, "must be a URL"),
    "a base path with a slash at the end": ({"basePath": "/cms/"}, "like '/cms'"),
    "a flag that is a number": ({"webPage": 1}, "true or false"),
    "a key without a name": ({"key": None}, "lower-case words"),
    "no replica": ({"replicas": []}, "lower-case words"),
    "clients as a list": ({"clients": []}, "must be an object"),
    "a client as a number": ({"clients": {"demo:ci": 1}}, "clients.demo:ci"),
    "an unknown role": ({"roles": {"demo:ci": "King"}}, "'Owner', 'Developer'"),
    "an unknown member of an app": ({"apps": {"demo": {"gone": True}}}, "apps.demo"),
    "an unknown anonymous role": ({"apps": {"demo": {"anonymous": "x"}}}, "apps.demo.anonymous"),
    "counts that are set": ({"counts": {}}, "resets them"),
    "faults as an object": ({"faults": {}}, "must be a list"),
    "an unknown kind of fault": ({"faults": [{"kind": "flood"}]}, "known: status, html"),
    "an unknown endpoint": ({"faults": [{"kind": "hang", "on": "door"}]}, "known: token, probe"),
    "an unknown member of a fault": ({"faults": [{"kind": "hang", "status": 1}]}, "has no 'status'; known:"),
    "a fault that lacks something": ({"faults": [{"kind": "slow"}]}, "needs 'seconds'"),
    "a fault with a wrong value": ({"faults": [{"kind": "status", "status": "429"}]}, "cannot be '429'"),
    "a fault for no request": ({"faults": [{"kind": "hang", "times": 0}]}, "at least 1"),
}


@pytest.mark.parametrize(("patch", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_patch_says_why(squidex: Running, patch: Any, message: str) -> None:
    answer = ask(squidex.url, "PATCH", "/_sandbox/state", body=json.dumps(patch))
    assert answer.status == 400
    assert message in answer.json()["error"]


def test_a_wrong_patch_changes_nothing(squidex: Running) -> None:
    before = squidex.state()
    with pytest.raises(SwitchError, match="unknown switch"):
        squidex.patch({"lifetime": 5, "nope": 1})
    with pytest.raises(SwitchError, match="at least 1"):
        squidex.patch({"issuer": "https://x.test/", "lifetime": 0})
    assert squidex.state() == before


def test_the_state_over_http(squidex: Running) -> None:
    path = "/_sandbox/state"
    assert ask(squidex.url, "GET", path).json() == squidex.state()
    assert ask(squidex.url, "PATCH", path, body='{"lifetime": 60}').json()["lifetime"] == 60
    assert ask(squidex.url, "DELETE", path).json()["lifetime"] == 2592000
    assert ask(squidex.url, "PATCH", path, body="{").status == 400
    assert ask(squidex.url, "POST", path).status == 405
    assert ask(squidex.url, "GET", "/_sandbox/nope").status == 404


def test_the_state_names_no_secret(squidex: Running) -> None:
    ask_token(squidex.url)
    shown = json.dumps([squidex.state(), squidex.log()])
    assert "s3cr3t" not in shown
    assert "eyJ" not in shown


def test_two_spellings_of_a_client_cannot_have_two_secrets() -> None:
    with pytest.raises(ValueError, match="two secrets"), running({"a:b": "x", "a~b": "y"}):
        pass
