"""Each kind of fault, and how faults choose the requests they spoil."""

from __future__ import annotations

import email.utils
import http.client
import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.squidex import keys, running
from tests.sandbox.squidex_client import Answer, ask, ask_token, claims_of, probe, token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandbox.squidex import Running

KEY = keys.generate()
JWKS = "/identity-server/.well-known/jwks"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running({"demo:ci": "s3cr3t", "shop:web": "s3cr3t"}, key=KEY) as started:
        yield started


@pytest.fixture
def squidex(server: Running) -> Running:
    server.reset()
    return server


def fault(squidex: Running, kind: str, **members: Any) -> None:
    squidex.patch({"faults": [{"kind": kind, **members}]})


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for a condition of another thread."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        threading.Event().wait(0.005)


class Background:
    """A request on its way."""

    def __init__(self, send: Callable[[], Answer]) -> None:
        self.answer: Answer | None = None
        self._thread = threading.Thread(target=self._run, args=(send,))
        self._thread.start()

    def _run(self, send: Callable[[], Answer]) -> None:
        self.answer = send()

    def result(self) -> Answer:
        self._thread.join(timeout=10)
        assert self.answer is not None
        return self.answer


def test_any_status(squidex: Running) -> None:
    fault(squidex, "status", status=503, body="<h1>busy</h1>", contentType="text/html", headers={"X-Cache": "MISS"})
    answer = ask_token(squidex.url)
    assert (answer.status, answer.text) == (503, "<h1>busy</h1>")
    assert answer.headers["content-type"] == "text/html"
    assert answer.headers["x-cache"] == "MISS"
    assert "retry-after" not in answer.headers


def test_retry_after_in_seconds_and_as_a_date(squidex: Running) -> None:
    fault(squidex, "status", status=429, retryAfter=7)
    assert ask_token(squidex.url).headers["retry-after"] == "7"
    fault(squidex, "status", status=429, retryAfterDate=60)
    at = email.utils.parsedate_to_datetime(ask_token(squidex.url).headers["retry-after"]).timestamp()
    assert 55 < at - time.time() <= 61


@pytest.mark.parametrize("status", [200, 500, 502])
def test_html(squidex: Running, status: int) -> None:
    fault(squidex, "html", status=status)
    answer = ask_token(squidex.url)
    assert (answer.status, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert answer.text.startswith("<!DOCTYPE html>")


def test_redirect(squidex: Running) -> None:
    fault(squidex, "redirect")
    answer = ask(squidex.url, "GET", "/api/apps/demo?a=b")
    assert answer.status == 307
    assert answer.headers["location"] == f"{squidex.url.replace('http:', 'https:')}/api/apps/demo?a=b"
    fault(squidex, "redirect", status=302, location="/login")
    assert ask(squidex.url, "GET", "/api/apps/demo").headers["location"] == "/login"


def test_oauth_errors(squidex: Running) -> None:
    fault(squidex, "oauth", error="invalid_client")
    answer = ask_token(squidex.url)
    assert (answer.status, answer.json()) == (401, {"error": "invalid_client"})
    fault(squidex, "oauth", error="server_error", status=500, description="later")
    answer = ask_token(squidex.url)
    assert (answer.status, answer.json()["error_description"]) == (500, "later")


CHANGED = {
    "expires_in as text": {"set": {"expires_in": "2592000"}},
    "negative expires_in": {"set": {"expires_in": -5}},
    "huge expires_in": {"set": {"expires_in": 10**30}},
    "no expires_in": {"remove": ["expires_in"]},
    "no access_token": {"remove": ["access_token"]},
    "access_token as a number": {"set": {"access_token": 5}},
    "empty access_token": {"set": {"access_token": ""}},
    "another token_type": {"set": {"token_type": "mac"}},
}


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_changed_json(squidex: Running, change: dict[str, Any]) -> None:
    fault(squidex, "json", on="token", **change)
    answer = ask_token(squidex.url)
    assert answer.status == 200
    document = answer.json()
    for name, value in change.get("set", {}).items():
        assert document[name] == value
    assert not set(change.get("remove", ())) & set(document)
    assert "scope" in document


def test_other_json(squidex: Running) -> None:
    for body in ([1, 2], None, "text"):
        fault(squidex, "json", body=body)
        assert ask_token(squidex.url).json() == body
    fault(squidex, "json", on="jwks", set={"keys": []})
    assert ask(squidex.url, "GET", JWKS).json() == {"keys": []}


def test_changed_claims(squidex: Running) -> None:
    fault(squidex, "token", claims={"exp": None, "client_id": "other"})
    claims = claims_of(token(squidex.url))
    assert "exp" not in claims
    assert claims["client_id"] == "other"


def test_expiry_that_differs_from_the_answer(squidex: Running) -> None:
    fault(squidex, "token", expIn=60)
    document = ask_token(squidex.url).json()
    assert document["expires_in"] >= 2591999
    assert 55 <= claims_of(document["access_token"])["exp"] - time.time() <= 61


def test_opaque_token(squidex: Running) -> None:
    fault(squidex, "token", opaque=True)
    bearer = token(squidex.url)
    assert "." not in bearer
    assert probe(squidex.url, bearer).status == 401


def test_a_new_token_that_is_refused(squidex: Running) -> None:
    fault(squidex, "token", key="stranger")
    assert "ID2090" in probe(squidex.url, token(squidex.url)).headers["www-authenticate"]


def test_slow(squidex: Running) -> None:
    fault(squidex, "slow", seconds=0.2)
    began = time.monotonic()
    assert ask_token(squidex.url).status == 200
    assert time.monotonic() - began >= 0.2


def test_drip(squidex: Running) -> None:
    fault(squidex, "drip", seconds=0.01, bytes=100)
    began = time.monotonic()
    assert ask_token(squidex.url).json()["token_type"] == "Bearer"
    assert time.monotonic() - began >= 0.05


def test_hang_ends_when_the_fault_does(squidex: Running) -> None:
    fault(squidex, "hang")
    waiting = Background(lambda: ask_token(squidex.url))
    until(lambda: squidex.state()["counts"]["inFlight"].get("token") == 1)
    squidex.patch({"faults": []})
    assert waiting.result().status == 200


def test_a_hanging_request_is_forgotten_when_its_client_leaves(squidex: Running) -> None:
    fault(squidex, "hang")
    with pytest.raises(TimeoutError):
        ask(squidex.url, "GET", JWKS, timeout=0.1)
    until(lambda: not squidex.state()["counts"]["inFlight"])
    assert squidex.state()["counts"]["jwks"]["byStatus"] == {"0": 1}


def test_stopping_does_not_wait_for_hanging_requests() -> None:
    with running({"demo:ci": "s3cr3t"}, key=KEY) as squidex:
        fault(squidex, "hang")
        address = squidex.url.removeprefix("http://").split(":")
        connection = socket.create_connection((address[0], int(address[1])), timeout=5)
        connection.sendall(b"GET /api/ping/ HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: squidex.state()["counts"]["inFlight"] != {})
        began = time.monotonic()
    assert time.monotonic() - began < 2
    connection.close()


def test_reset(squidex: Running) -> None:
    fault(squidex, "reset")
    with pytest.raises(ConnectionResetError):
        ask_token(squidex.url)
    assert squidex.state()["counts"]["token"]["byStatus"] == {"0": 1}


@pytest.mark.parametrize("members", [{}, {"bytes": 0}, {"bytes": 10}])
def test_truncate(squidex: Running, members: dict[str, int]) -> None:
    fault(squidex, "truncate", **members)
    with pytest.raises(http.client.IncompleteRead):
        ask_token(squidex.url)


def test_huge(squidex: Running) -> None:
    fault(squidex, "huge", bytes=3_000_000)
    answer = ask_token(squidex.url)
    assert len(answer.text) == 3_000_000
    assert answer.json()["token_type"] == "Bearer"


def test_only_the_named_endpoints(squidex: Running) -> None:
    bearer = token(squidex.url)
    fault(squidex, "status", on=["probe", "jwks"], status=502)
    assert [
        ask_token(squidex.url).status,
        probe(squidex.url, bearer).status,
        probe(squidex.url, bearer, "/api/languages/").status,
        probe(squidex.url, bearer, "/api/ping/").status,
        ask(squidex.url, "GET", JWKS).status,
    ] == [200, 502, 502, 204, 502]


def test_only_one_client(squidex: Running) -> None:
    other = token(squidex.url, client_id="shop:web")
    fault(squidex, "status", client="shop:web", status=502)
    assert ask_token(squidex.url).status == 200
    assert ask_token(squidex.url, client_id="shop~web").status == 502
    assert probe(squidex.url, other, "/api/languages/").status == 502
    assert probe(squidex.url, token(squidex.url)).status == 200


def test_only_one_app(squidex: Running) -> None:
    fault(squidex, "status", app="shop", status=502)
    assert probe(squidex.url, "abc", "/api/apps/shop").status == 502
    assert probe(squidex.url, "abc").status == 401


def test_only_some_requests(squidex: Running) -> None:
    fault(squidex, "status", on="token", status=429, skip=1, times=2)
    assert [ask_token(squidex.url).status for _ in range(4)] == [200, 429, 429, 200]
    assert squidex.state()["faults"] == []


def test_several_faults_take_part_and_the_first_answers(squidex: Running) -> None:
    squidex.patch(
        {
            "faults": [
                {"kind": "slow", "seconds": 0.1},
                {"kind": "status", "status": 500, "times": 1},
                {"kind": "html", "status": 502},
            ]
        }
    )
    began = time.monotonic()
    assert [ask_token(squidex.url).status for _ in range(2)] == [500, 502]
    assert time.monotonic() - began >= 0.2
    shown = squidex.state()["faults"]
    assert [one["kind"] for one in shown] == ["slow", "html"]
    assert squidex.patch({"faults": shown})["faults"] == json.loads(json.dumps(shown))
