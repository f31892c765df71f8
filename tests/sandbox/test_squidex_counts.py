"""What the stand-in remembers of its requests."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from sandbox.squidex import keys, running
from tests.sandbox.squidex_client import ask, ask_token, probe, token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandbox.squidex import Running

KEY = keys.generate()


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running({"demo:ci": "s3cr3t", "shop:web": "s3cr3t"}, key=KEY) as started:
        yield started


@pytest.fixture
def squidex(server: Running) -> Running:
    server.reset()
    return server


def test_counts_by_client_status_and_app(squidex: Running) -> None:
    bearer = token(squidex.url)
    ask_token(squidex.url, client_secret="wrong")
    ask_token(squidex.url, client_id="shop:web")
    probe(squidex.url, bearer)
    probe(squidex.url, bearer, "/api/apps/shop")
    probe(squidex.url, bearer, "/api/languages/")
    ask(squidex.url, "GET", "/identity-server/.well-known/jwks")
    counts = squidex.state()["counts"]
    assert counts["token"]["total"] == 3
    assert counts["token"]["byStatus"] == {"200": 2, "401": 1}
    assert counts["token"]["byClient"] == {"demo:ci": {"200": 1, "401": 1}, "shop:web": {"200": 1}}
    assert counts["probe"]["total"] == 3
    assert counts["probe"]["byStatus"] == {"200": 2, "404": 1}
    assert counts["probe"]["byApp"] == {"demo": 1, "shop": 1}
    assert counts["jwks"] == {"total": 1, "byStatus": {"200": 1}}


def test_counts_can_be_reset(squidex: Running) -> None:
    ask_token(squidex.url)
    counts = squidex.patch({"counts": None})["counts"]
    assert counts["token"] == {"total": 0, "byStatus": {}, "byClient": {}, "lastRequest": None}
    assert squidex.log() == []


def test_remembers_how_a_token_was_asked_for(squidex: Running) -> None:
    ask_token(squidex.url, headers={"X-AuthRequest": "1"})
    last = squidex.state()["counts"]["token"]["lastRequest"]
    assert last["contentType"] == "application/x-www-form-urlencoded"
    assert last["parameters"] == ["grant_type", "client_id", "client_secret", "scope"]
    assert "X-AuthRequest" in last["headers"]


def test_logs_one_row_per_request(squidex: Running) -> None:
    bearer = token(squidex.url)
    probe(squidex.url, bearer)
    rows = squidex.log()
    assert [(row["endpoint"], row["client"], row["app"], row["status"]) for row in rows] == [
        ("token", "demo:ci", None, 200),
        ("probe", "demo:ci", "demo", 200),
    ]
    assert rows[0]["seconds"] <= rows[1]["seconds"]
    later = ask(squidex.url, "GET", f"/_sandbox/log?after={rows[0]['number']}")
    assert later.json() == rows[1:]


def test_sees_how_many_requests_were_open_at_once(squidex: Running) -> None:
    squidex.patch({"faults": [{"kind": "slow", "seconds": 0.3, "on": "token"}]})
    threads = [threading.Thread(target=ask_token, args=(squidex.url,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = squidex.state()["counts"]
    assert counts["maxInFlight"]["token"] == 5
    assert counts["inFlight"] == {}


def test_basic_credentials_count_for_their_client(squidex: Running) -> None:
    ask_token(squidex.url, headers={"Authorization": "Basic c2hvcCUzQXdlYjpzM2NyM3Q="}, client_id="", client_secret="")
    assert squidex.state()["counts"]["token"]["byClient"] == {"shop:web": {"200": 1}}
