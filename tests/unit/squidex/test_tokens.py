"""The request for a token, byte for byte, and what is made of the answer."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import email.utils
import json
import logging
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from sandbox import squidex
from squidex_operator.api import reasons
from squidex_operator.policy import backoff, credentials, observed, render, schedule
from squidex_operator.squidex import answers, errors, http, probe, tokens
from tests.unit.squidex import wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

NOW = dt.datetime(2026, 5, 1, 12, 0, 0, 750_000, tzinfo=dt.UTC)
SECRET = "a+b/c=d e&f%ü"
OURS = credentials.Credentials("demo:ci", SECRET, trimmed=False)


def run(work: Callable[[http.Http], Awaitable[T]]) -> T:
    async def main() -> T:
        sender = http.Http(connections_per_host=4, timeout=5)
        try:
            return await work(sender)
        finally:
            await sender.close()

    return asyncio.run(main())


def jwt(header: object = None, payload: object = None) -> str:
    parts = [
        {"alg": "RS256", "kid": "key-1", "typ": "at+jwt"} if header is None else header,
        {"client_id": "demo:ci", "exp": int(NOW.timestamp()) + 3600} if payload is None else payload,
    ]
    return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts) + ".c2ln"


def read(date: dt.datetime | None = NOW, **members: Any) -> render.Grant:
    body = {"access_token": jwt(), "token_type": "Bearer", "expires_in": 3600, **members}
    headers = {"date": email.utils.format_datetime(date, usegmt=True)} if date else {}
    return tokens.read(answers.Answer("https://squidex.test", 200, headers, b""), body, now=NOW)


def lifetime(grant: render.Grant) -> float:
    return (grant.expires_at - grant.issued_at).total_seconds()


def test_the_request_is_the_form_that_the_sdks_send() -> None:
    async def work(sender: http.Http) -> wire.Wire:
        async with wire.serving(wire.response("503 No", b"")) as server:
            with pytest.raises(errors.UnavailableError):
                await tokens.fetch(sender, f"{server.url}/cms", OURS, "squidex-api openid", ca="", now=NOW)
            return server

    server = run(work)
    form = b"client_id=demo%3Aci&client_secret=a%2Bb%2Fc%3Dd+e%26f%25%C3%BC&scope=squidex-api+openid"
    assert server.bodies == [b"grant_type=client_credentials&" + form]
    line, *headers = server.heads[0].decode().strip().split("\r\n")
    assert line == "POST /cms/identity-server/connect/token HTTP/1.1"
    assert "content-type: application/x-www-form-urlencoded" in headers
    sent = {header.partition(":")[0].lower() for header in headers}
    assert sent == {"host", "user-agent", "accept", "accept-encoding", "content-length", "content-type"}


def test_a_token_of_the_stand_in_is_read_whole() -> None:
    async def work(sender: http.Http) -> tokens.Fetched:
        async with squidex.StandIn({"demo:ci": SECRET}) as server:
            return await tokens.fetch(sender, server.url, OURS, "squidex-api", ca="", now=dt.datetime.now(dt.UTC))

    fetched = run(work)
    assert fetched.grant.client_id == "demo:ci"
    assert fetched.grant.key_id
    assert lifetime(fetched.grant) == pytest.approx(30 * 24 * 3600, abs=2)
    assert fetched.clock_skew is not None
    assert abs(fetched.clock_skew) < dt.timedelta(seconds=5)


def test_the_other_spelling_of_a_client_id_is_the_clients_own() -> None:
    spelt = credentials.Credentials("demo~ci", SECRET, trimmed=False)

    async def work(sender: http.Http) -> tokens.Fetched:
        async with squidex.StandIn({"demo:ci": SECRET}) as server:
            return await tokens.fetch(sender, server.url, spelt, "squidex-api", ca="", now=dt.datetime.now(dt.UTC))

    assert run(work).grant.client_id == "demo~ci"


def test_another_clients_token_is_not_taken() -> None:
    async def work(sender: http.Http) -> None:
        async with squidex.StandIn({"demo:ci": SECRET}) as server:
            server.patch({"faults": [{"kind": "token", "claims": {"client_id": "demo:other"}}]})
            await tokens.fetch(sender, server.url, OURS, "squidex-api", ca="", now=dt.datetime.now(dt.UTC))

    with pytest.raises(errors.UnclearError, match="token of another client") as caught:
        run(work)
    assert caught.value.problem.reason is reasons.Reason.INVALID_RESPONSE


LIFETIMES: dict[str, tuple[dict[str, Any], float]] = {
    "both say the same": ({}, 3600),
    "the answer says less": ({"expires_in": 60}, 60),
    "the token says less": ({"expires_in": 7200}, 3600),
    "the answer says nothing": ({"expires_in": None}, 3600),
    "the answer says zero": ({"expires_in": 0}, 3600),
    "the answer says less than nothing": ({"expires_in": -5}, 3600),
    "the answer says it as a text": ({"expires_in": "60"}, 60),
    "the answer says it as a fraction": ({"expires_in": 60.5}, 61),
    "the answer says a word": ({"expires_in": "soon"}, 3600),
    "the answer says true": ({"expires_in": True}, 3600),
    "the answer says a list": ({"expires_in": [1]}, 3600),
    "the answer says not a number": ({"expires_in": float("nan")}, 3600),
    "the answer says for ever": ({"expires_in": float("inf")}, 3600),
    "an opaque token and an answer": ({"access_token": "opaque", "expires_in": 60}, 60),
    "an opaque token and no answer": (
        {"access_token": "opaque", "expires_in": None},
        schedule.ASSUMED_LIFETIME.total_seconds(),
    ),
    "an opaque token for a century": (
        {"access_token": "opaque", "expires_in": 10**10},
        schedule.MAX_LIFETIME.total_seconds(),
    ),
    "a token without an end": ({"access_token": jwt(payload={"client_id": "demo:ci"}), "expires_in": 60}, 60),
}


@pytest.mark.parametrize(("members", "seconds"), LIFETIMES.values(), ids=LIFETIMES)
def test_how_long_a_token_lives(members: dict[str, Any], seconds: float) -> None:
    # Times are written to the second, so a fraction of one may go either way, but never past the end.
    assert seconds - 1 <= lifetime(read(**members)) <= seconds


def test_a_server_whose_clock_is_hours_ahead_grants_what_it_means_to() -> None:
    ahead = NOW + dt.timedelta(hours=5)
    token = jwt(payload={"client_id": "demo:ci", "exp": int(ahead.timestamp()) + 3600})
    assert lifetime(read(date=ahead, access_token=token)) == pytest.approx(3600, abs=1)


def test_a_server_whose_clock_is_hours_behind_grants_what_it_means_to() -> None:
    behind = NOW - dt.timedelta(hours=5)
    token = jwt(payload={"client_id": "demo:ci", "exp": int(behind.timestamp()) + 3600})
    assert lifetime(read(date=behind, access_token=token)) == pytest.approx(3600, abs=1)


def test_without_a_date_our_own_clock_counts() -> None:
    assert lifetime(read(date=None)) == pytest.approx(3600, abs=1)


UNUSABLE: dict[str, dict[str, Any]] = {
    "no token": {"access_token": None},
    "an empty token": {"access_token": ""},
    "a number": {"access_token": 7},
    "a list": {"access_token": ["a"]},
    "a line break, which would end the header": {"access_token": "abc\r\nX-Admin: 1"},
    "a line break at the end": {"access_token": "abc\n"},
    "a blank": {"access_token": "abc def"},
    "a NUL": {"access_token": "abc\0"},
    "letters that no header takes": {"access_token": "tökén"},
    "digits that are not ASCII": {"access_token": "١٢٣"},
    "a token as long as a book": {"access_token": "a" * 65_537},
    "another type": {"token_type": "MAC"},
    "a type that is no text": {"token_type": 7},
    "a type that is null": {"token_type": None},
    "a JWT that is dead already": {"access_token": jwt(payload={"client_id": "demo:ci", "exp": 1}), "expires_in": 60},
    "an opaque token that is dead already": {"access_token": "opaque", "expires_in": -1},
    "a JWT that names no client": {"access_token": jwt(payload={"exp": 4_000_000_000})},
    "a JWT whose client is a number": {"access_token": jwt(payload={"client_id": 7})},
}


@pytest.mark.parametrize("members", UNUSABLE.values(), ids=UNUSABLE)
def test_what_cannot_be_used_is_not_taken(members: dict[str, Any]) -> None:
    with pytest.raises(errors.UnclearError) as caught:
        read(**members)
    assert caught.value.problem.reason is reasons.Reason.INVALID_RESPONSE
    assert caught.value.problem.kind is backoff.Kind.UNKNOWN


@pytest.mark.parametrize("kind", ["bearer", "BEARER", "Bearer"])
def test_the_type_is_taken_in_any_case_of_letters(kind: str) -> None:
    assert read(token_type=kind).token


@pytest.mark.parametrize(
    ("key_id", "kept"),
    [
        ("yGi1vAqOExbmgDqohleWzQ", "yGi1vAqOExbmgDqohleWzQ"),
        ("", ""),
        ("a b", ""),
        ("a\nb", ""),
        ("a" * 129, ""),
        ("ключ", ""),
        (7, ""),
    ],
)
def test_a_key_id_is_kept_only_where_it_can_be_shown(key_id: object, kept: str) -> None:
    assert read(access_token=jwt(header={"kid": key_id})).key_id == kept


def test_a_grant_never_shows_its_token() -> None:
    grant = read()
    assert grant.token not in repr(grant)
    assert grant.token not in repr(tokens.Fetched(grant, None))
    assert SECRET not in repr(OURS)


FAULTS: dict[str, list[dict[str, Any]]] = {
    "a wrong secret": [{"kind": "oauth", "error": "invalid_client", "description": SECRET}],
    "an unknown scope": [{"kind": "oauth", "error": "invalid_scope"}],
    "a web page": [{"kind": "html"}],
    "a web page with 500": [{"kind": "html", "status": 500}],
    "a redirect that repeats the secret": [
        {"kind": "redirect", "location": f"https://x.test/?client_secret={SECRET[:5]}"}
    ],
    "too many requests": [{"kind": "status", "status": 429, "retryAfter": 30}],
    "a body that is too large": [{"kind": "huge", "bytes": 1_000_000}],
    "a reset": [{"kind": "reset"}],
    "an answer that is cut off": [{"kind": "truncate"}],
    "a token of a wrong type": [{"kind": "json", "set": {"access_token": 7}}],
    "a type that is not Bearer": [{"kind": "json", "set": {"token_type": "MAC"}}],
    "a document that is a list": [{"kind": "json", "body": [1]}],
    "another client's token": [{"kind": "token", "claims": {"client_id": "demo:other"}}],
    "a token that is dead": [{"kind": "token", "expIn": -60}],
    "a token of no client": [{"kind": "token", "claims": {"client_id": None, "sub": None}}],
    "a status of its own": [{"kind": "status", "status": 418, "body": SECRET}],
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_whatever_goes_wrong_no_secret_and_no_token_is_told(
    faults: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def work(sender: http.Http) -> errors.SquidexError:
        async with squidex.StandIn({"demo:ci": SECRET}) as server:
            server.patch({"faults": [{**fault, "on": "token"} for fault in faults]})
            with pytest.raises(errors.SquidexError) as caught:
                await tokens.fetch(sender, server.url, OURS, "squidex-api", ca="", now=dt.datetime.now(dt.UTC))
            return caught.value

    error = run(work)
    told = " ".join([str(error), repr(error), repr(error.problem), repr(error.__cause__), caplog.text])
    assert SECRET[:5] not in told
    assert "eyJ" not in told
    assert error.__suppress_context__ or error.__context__ is None


def test_a_probe_sends_the_token_as_bearer_and_nothing_else_of_it() -> None:
    grant = read()

    async def work(sender: http.Http) -> wire.Wire:
        answer = wire.response("200 OK", b"{}", "Content-Type: application/json")
        async with wire.serving(answer) as server:
            verdict, _ = await probe.ask(sender, server.url, grant, mode="Auto", client_id="demo:ci", ca="")
            assert verdict is observed.Verdict.ACCEPTED
            return server

    head = run(work).heads[0].decode()
    assert head.startswith("GET /api/apps/demo HTTP/1.1\r\n")
    assert f"\r\nauthorization: Bearer {grant.token}\r\n" in head
    assert "apikey" not in head.lower()
