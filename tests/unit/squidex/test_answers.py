"""What each answer of Squidex means: the one table, against what was recorded and what proxies make of it."""

from __future__ import annotations

import contextlib
import datetime as dt
import email.utils
import json
import pathlib
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

from squidex_operator.api import reasons
from squidex_operator.policy import backoff, observed
from squidex_operator.squidex import answers, errors

Kind = backoff.Kind
Reason = reasons.Reason
Verdict = observed.Verdict

HOST = "https://squidex.test"
RECORDED: dict[str, dict[str, Any]] = {
    exchange["id"]: exchange
    for exchange in json.loads(
        (pathlib.Path(__file__).parents[2] / "data" / "squidex-wire" / "exchanges.json").read_text()
    )
}


def answer(status: int, body: object = b"", **headers: str) -> answers.Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return answers.Answer(HOST, status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def recorded(name: str) -> answers.Answer:
    response = RECORDED[name]["response"]
    headers = {key.lower(): value for key, value in response["headers"].items()}
    return answers.Answer(HOST, response["status"], headers, response["body"].encode())


def failure(given: answers.Answer) -> errors.SquidexError:
    with pytest.raises(errors.SquidexError) as caught:
        answers.token_answer(given)
    return caught.value


GRANTED = ("T1", "T2", "T2b", "T3", "T4", "T6", "T22", "T28", "T30")

REFUSED = {
    **dict.fromkeys(("T5", "T7", "T8", "T8b", "T8e", "T28b", "T32"), (Kind.PERMANENT, Reason.INVALID_CLIENT)),
    **dict.fromkeys(
        ("T9", "T9b", "T10", "T11", "T14", "T15", "T17", "T17b", "T17d", "T18", "T19", "T20b", "T31", "T34"),
        (Kind.PERMANENT, Reason.INVALID_REQUEST),
    ),
    **dict.fromkeys(("T12", "T12c"), (Kind.PERMANENT, Reason.INVALID_REQUEST)),
    "T13": (Kind.PERMANENT, Reason.INVALID_SCOPE),
    **dict.fromkeys(("T20", "T21", "I1"), (Kind.PERMANENT, Reason.UNAUTHORIZED_CLIENT)),
    "T22c": (Kind.UNKNOWN, Reason.NOT_SQUIDEX),
    "D3": (Kind.PERMANENT, Reason.INVALID_REQUEST),
}

PROBED = {
    "A1": Verdict.ACCEPTED,
    **dict.fromkeys(("A2", "A3", "A3b", "A3c", "A3e", "A4", "A5", "A6", "A7", "A7b"), Verdict.REFUSED),
    **dict.fromkeys(("A16", "A16b"), Verdict.INCONCLUSIVE),
}

NOT_ASKED = {"D1", "D2", "D4"}
"""Keys and discovery: read by keys.py, or not at all."""


def test_every_recorded_exchange_is_in_one_of_the_tables() -> None:
    tables = [set(GRANTED), set(REFUSED), set(PROBED), NOT_ASKED]
    assert set.union(*tables) == set(RECORDED)
    assert sum(len(table) for table in tables) == len(RECORDED)


@pytest.mark.parametrize("name", GRANTED)
def test_a_recorded_grant_is_read(name: str) -> None:
    assert answers.token_answer(recorded(name))["token_type"] == "Bearer"


@pytest.mark.parametrize(("name", "meaning"), REFUSED.items())
def test_a_recorded_refusal_is_known(name: str, meaning: tuple[Kind, Reason]) -> None:
    problem = failure(recorded(name)).problem
    assert (problem.kind, problem.reason) == meaning


@pytest.mark.parametrize(("name", "verdict"), PROBED.items())
def test_a_recorded_probe_is_known(name: str, verdict: Verdict) -> None:
    assert answers.probe_answer(recorded(name))[0] is verdict


HTML = b"<!doctype html><title>Squidex</title>"
DEEP = b'{"a":' * 100_000

TOKEN_TABLE: dict[str, tuple[answers.Answer, Kind, Reason]] = {
    "IdentityServer4 answers a wrong client with 400": (
        answer(400, {"error": "invalid_client"}),
        Kind.PERMANENT,
        Reason.INVALID_CLIENT,
    ),
    "a grant that may not be had": (answer(400, {"error": "invalid_grant"}), Kind.PERMANENT, Reason.INVALID_CLIENT),
    "the server has an error of its own": (answer(400, {"error": "server_error"}), Kind.TRANSIENT, Reason.SERVER_ERROR),
    "the server is busy": (
        answer(503, {"error": "temporarily_unavailable"}),
        Kind.TRANSIENT,
        Reason.SERVER_ERROR,
    ),
    "the server asks to slow down": (answer(400, {"error": "slow_down"}), Kind.TRANSIENT, Reason.RATE_LIMITED),
    "an error that no RFC knows": (answer(400, {"error": "no_such"}), Kind.UNKNOWN, Reason.FORBIDDEN),
    "an error that is an object": (answer(400, {"error": {"code": 1}}), Kind.UNKNOWN, Reason.FORBIDDEN),
    "an error with 200": (answer(200, {"error": "invalid_client"}), Kind.PERMANENT, Reason.INVALID_CLIENT),
    "an unknown error with 200": (answer(200, {"error": "x", "access_token": "y"}), Kind.UNKNOWN, Reason.NOT_SQUIDEX),
    "a web page with 200": (answer(200, HTML), Kind.UNKNOWN, Reason.NOT_SQUIDEX),
    "a web page with 500": (answer(500, HTML), Kind.TRANSIENT, Reason.SERVER_ERROR),
    "a web page with 502": (answer(502, HTML), Kind.TRANSIENT, Reason.SERVER_ERROR),
    "nothing with 204": (answer(204), Kind.UNKNOWN, Reason.NOT_SQUIDEX),
    "a list with 200": (answer(200, [1]), Kind.UNKNOWN, Reason.NOT_SQUIDEX),
    "a number with 200": (answer(200, 7), Kind.UNKNOWN, Reason.NOT_SQUIDEX),
    "null with 200": (answer(200, None), Kind.UNKNOWN, Reason.NOT_SQUIDEX),
    "JSON that is cut off": (answer(200, b'{"access_token": "a'), Kind.UNKNOWN, Reason.NOT_SQUIDEX),
    "JSON that is no UTF-8": (answer(200, b'{"a": "\xff"}'), Kind.UNKNOWN, Reason.NOT_SQUIDEX),
    "JSON as deep as a well": (answer(200, DEEP), Kind.UNKNOWN, Reason.NOT_SQUIDEX),
    "a number of ten thousand digits": (
        answer(200, b'{"expires_in":' + b"9" * 10_000 + b"}"),
        Kind.UNKNOWN,
        Reason.NOT_SQUIDEX,
    ),
    "a redirect to https": (answer(307, location="https://squidex.test/"), Kind.UNKNOWN, Reason.REDIRECTED),
    "a redirect to a login page": (answer(302, HTML), Kind.UNKNOWN, Reason.REDIRECTED),
    "not modified": (answer(304), Kind.UNKNOWN, Reason.REDIRECTED),
    "a proxy's 401": (answer(401, HTML, www_authenticate='Basic realm="x"'), Kind.UNKNOWN, Reason.FORBIDDEN),
    "a proxy's 403": (answer(403, HTML), Kind.UNKNOWN, Reason.FORBIDDEN),
    "a wrong path": (answer(404), Kind.UNKNOWN, Reason.NOT_SQUIDEX),
    "a path that takes no POST": (answer(405), Kind.UNKNOWN, Reason.NOT_SQUIDEX),
    "the server gave up waiting": (answer(408), Kind.TRANSIENT, Reason.TIMEOUT),
    "too many requests": (answer(429), Kind.TRANSIENT, Reason.RATE_LIMITED),
    "a proxy that has no server": (answer(503, HTML), Kind.TRANSIENT, Reason.SERVER_ERROR),
    "a status that no RFC knows": (answer(799), Kind.UNKNOWN, Reason.NOT_SQUIDEX),
}


@pytest.mark.parametrize(("given", "kind", "reason"), TOKEN_TABLE.values(), ids=TOKEN_TABLE)
def test_a_token_answer_means(given: answers.Answer, kind: Kind, reason: Reason) -> None:
    problem = failure(given).problem
    assert (problem.kind, problem.reason) == (kind, reason)
    assert HOST in problem.message
    assert str(given.status) in problem.message


JSON = "application/json; charset=utf-8"
PROBE_TABLE: dict[str, tuple[answers.Answer, Verdict]] = {
    "the app": (answer(200, {}, content_type=JSON), Verdict.ACCEPTED),
    "a web page with 200": (answer(200, HTML, content_type="text/html"), Verdict.INCONCLUSIVE),
    "200 without a type": (answer(200, {}), Verdict.INCONCLUSIVE),
    "the app is not there": (answer(404, {}, content_type=JSON), Verdict.APP_NOT_FOUND),
    "a proxy's 404": (answer(404, HTML, content_type="text/html"), Verdict.INCONCLUSIVE),
    "a 401 in any case of letters": (answer(401, www_authenticate="BEARER"), Verdict.REFUSED),
    "a 401 that asks for a password": (answer(401, www_authenticate="Basic"), Verdict.INCONCLUSIVE),
    "a 401 that asks for nothing": (answer(401), Verdict.INCONCLUSIVE),
    "a client without rights": (answer(403, {}, content_type=JSON), Verdict.INCONCLUSIVE),
    "too many requests": (answer(429), Verdict.INCONCLUSIVE),
    "the server is down": (answer(500, HTML), Verdict.INCONCLUSIVE),
    "a redirect": (answer(302), Verdict.INCONCLUSIVE),
}


@pytest.mark.parametrize(("given", "verdict"), PROBE_TABLE.values(), ids=PROBE_TABLE)
def test_a_probe_answer_means(given: answers.Answer, verdict: Verdict) -> None:
    found, message = answers.probe_answer(given)
    assert found is verdict
    assert message.endswith((".", "?"))


NOW = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)


def http_date(after: float) -> str:
    return email.utils.format_datetime(NOW + dt.timedelta(seconds=after), usegmt=True)


RETRY_TABLE: dict[str, tuple[dict[str, str], float | None]] = {
    "seconds": ({"retry_after": "120"}, 120),
    "none": ({}, None),
    "no seconds": ({"retry_after": "0"}, 0),
    "white space around it": ({"retry_after": " 7 "}, 7),
    "a date, on the server's clock": ({"retry_after": http_date(90), "date": http_date(0)}, 90),
    "a date that has passed": ({"retry_after": http_date(-90), "date": http_date(0)}, 0),
    "negative": ({"retry_after": "-5"}, None),
    "a fraction": ({"retry_after": "1.5"}, None),
    "a word": ({"retry_after": "soon"}, None),
    "digits that int() does not take": ({"retry_after": "²"}, None),
    "more digits than a year has seconds": ({"retry_after": "9" * 50}, 10**9),
    "a date without a zone": ({"retry_after": "Fri, 01 May 2026 12:00:30 -0000", "date": http_date(0)}, 30),
    "a date of no calendar": ({"retry_after": "Fri, 31 Feb 2026 12:00:00 GMT"}, None),
    "a zone of no map": ({"retry_after": "Fri, 01 May 2026 12:00:00 +9999999"}, None),
}


@pytest.mark.parametrize(("headers", "seconds"), RETRY_TABLE.values(), ids=RETRY_TABLE)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    problem = failure(answer(429, **headers)).problem
    assert problem.retry_after == (None if seconds is None else dt.timedelta(seconds=seconds))


def test_retry_after_as_a_date_goes_by_our_clock_where_the_server_does_not_tell_its_own() -> None:
    later = email.utils.format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(hours=1), usegmt=True)
    asked = failure(answer(503, retry_after=later)).problem.retry_after
    assert asked is not None
    assert dt.timedelta(minutes=59) < asked <= dt.timedelta(hours=1)


@hypothesis.given(
    status=strategies.integers(100, 999),
    body=strategies.binary(max_size=64) | strategies.sampled_from([HTML, b'{"error":"invalid_client"}', b"[]"]),
    retry=strategies.text(max_size=40),
    date=strategies.text(max_size=40),
)
def test_no_answer_at_all_ends_as_anything_but_an_error_of_ours(
    status: int, body: bytes, retry: str, date: str
) -> None:
    given = answer(status, body, retry_after=retry, date=date, content_type=retry, www_authenticate=date)
    with contextlib.suppress(errors.SquidexError):
        assert isinstance(answers.token_answer(given), dict)
    answers.probe_answer(given)


def test_no_part_of_a_body_gets_into_a_message_or_a_repr() -> None:
    secret = "the-very-secret"
    for status in (200, 302, 400, 401, 403, 404, 429, 500):
        for body in (secret.encode(), {"error": secret}, {"error": "invalid_client", "error_description": secret}):
            given = answer(status, body, content_type=JSON)
            texts = [repr(given), answers.probe_answer(given)[1]]
            try:
                answers.token_answer(given)
            except errors.SquidexError as error:
                texts += [str(error), repr(error), repr(error.problem)]
            assert secret not in " ".join(texts)
