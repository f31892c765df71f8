"""What each answer of Squidex means: the one table.

Classified by the JSON `error` first (RFC 6749, 5.2), then by the status: Squidex before 6.6 answers a bad client with a bare
400 `{"error": "invalid_client"}`, later ones with 401.
"""

import dataclasses
import datetime as dt
import email.utils
import functools
import json
from collections.abc import Mapping

from squidex_operator.api import reasons
from squidex_operator.policy import observed
from squidex_operator.squidex import errors

_Reason = reasons.Reason


@dataclasses.dataclass(frozen=True)
class Answer:
    """An HTTP answer, read whole."""

    host: str
    """`scheme://host:port` that was asked, for messages."""
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = dataclasses.field(repr=False)

    @property
    def date(self) -> dt.datetime | None:
        """The server's clock (RFC 9110, 6.6.1)."""
        return _http_date(self.headers.get("date"))


_OAUTH_ERRORS: dict[str, tuple[type[errors.SquidexError], reasons.Reason, str]] = {
    "invalid_client": (
        errors.RejectedError,
        _Reason.INVALID_CLIENT,
        "the id or the secret is wrong. Compare the credentials Secret with Settings > Clients in Squidex",
    ),
    "invalid_grant": (
        errors.RejectedError,
        _Reason.INVALID_CLIENT,
        "the client may not get a token. Compare the credentials Secret with Settings > Clients in Squidex",
    ),
    "unauthorized_client": (
        errors.RejectedError,
        _Reason.UNAUTHORIZED_CLIENT,
        "this client may not use client credentials. Use a client made under Settings > Clients in Squidex",
    ),
    "invalid_scope": (errors.RejectedError, _Reason.INVALID_SCOPE, "the scope is not known there. Correct spec.scope"),
    "invalid_request": (
        errors.RejectedError,
        _Reason.INVALID_REQUEST,
        "the request was not understood. Check spec.url, spec.scope and the credentials Secret",
    ),
    "unsupported_grant_type": (
        errors.RejectedError,
        _Reason.INVALID_REQUEST,
        "client credentials are not supported there. Is spec.url a Squidex?",
    ),
    "server_error": (errors.UnavailableError, _Reason.SERVER_ERROR, "the server has a problem of its own"),
    "temporarily_unavailable": (errors.UnavailableError, _Reason.SERVER_ERROR, "the server asks to come back later"),
    "slow_down": (errors.UnavailableError, _Reason.RATE_LIMITED, "the server asks for fewer requests"),
}

_STATUSES: list[tuple[range, type[errors.SquidexError], reasons.Reason, str]] = [
    (
        range(200, 300),
        errors.UnclearError,
        _Reason.NOT_SQUIDEX,
        "the answer is no JSON. Is the path of spec.url right?",
    ),
    (range(300, 400), errors.UnclearError, _Reason.REDIRECTED, "redirects are not followed. Correct spec.url"),
    (range(404, 406), errors.UnclearError, _Reason.NOT_SQUIDEX, "no Squidex is there. Is the path of spec.url right?"),
    (range(408, 409), errors.UnavailableError, _Reason.TIMEOUT, "the server gave up waiting"),
    (range(429, 430), errors.UnavailableError, _Reason.RATE_LIMITED, "too many requests"),
    (
        range(400, 500),
        errors.UnclearError,
        _Reason.FORBIDDEN,
        "the answer is not Squidex's. Is a proxy in front of it?",
    ),
    (range(500, 600), errors.UnavailableError, _Reason.SERVER_ERROR, "the server has a problem of its own"),
]


def token_answer(answer: Answer) -> dict[str, object]:
    """The JSON object of a successful token answer.

    Raises:
        SquidexError: for every other answer.
    """
    parsed = _json(answer)
    oauth_error = parsed.get("error") if parsed is not None else None
    if isinstance(oauth_error, str) and oauth_error in _OAUTH_ERRORS:
        kind, reason, advice = _OAUTH_ERRORS[oauth_error]
        message = f"{answer.host} answered {oauth_error} (HTTP {answer.status}): {_sentence(advice)}"
        raise kind(reason, message, retry_after=retry_after(answer))
    if answer.status == 200 and parsed is not None and oauth_error is None:
        return parsed
    raise status_error(answer)


def status_error(answer: Answer) -> errors.SquidexError:
    """The error that goes by the status alone."""
    for statuses, kind, reason, advice in _STATUSES:
        if answer.status in statuses:
            message = f"{answer.host} answered HTTP {answer.status}: {_sentence(advice)}"
            return kind(reason, message, retry_after=retry_after(answer))
    return errors.UnclearError(_Reason.NOT_SQUIDEX, f"{answer.host} answered HTTP {answer.status}: that says nothing.")


def _sentence(advice: str) -> str:
    return advice if advice.endswith("?") else f"{advice}."


def probe_answer(answer: Answer) -> tuple[observed.Verdict, str]:
    """What an answer to a probe says of the token: only a 401 that speaks of bearer tokens refuses it."""
    if answer.status == 200 and _json_type(answer):
        return observed.Verdict.ACCEPTED, "The server accepts the token."
    challenge = answer.headers.get("www-authenticate", "")
    if answer.status == 401 and challenge.lower().startswith("bearer"):
        return observed.Verdict.REFUSED, f"{answer.host} refuses the token (HTTP 401)."
    if answer.status == 404 and _json_type(answer):
        message = (
            f"{answer.host} knows the token, but not the app (HTTP 404): was the app or the client deleted, "
            "or has the client no role in it?"
        )
        return observed.Verdict.APP_NOT_FOUND, message
    return observed.Verdict.INCONCLUSIVE, str(status_error(answer))


def retry_after(answer: Answer) -> dt.timedelta | None:
    """`Retry-After` in either of its forms, seconds or a date (RFC 9110, 10.2.3); None where it is missing or odd."""
    value = answer.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return dt.timedelta(seconds=min(int(value[:10]), 10**9))
    date = _http_date(value)
    if date is None:
        return None
    # Measured on the server's clock where it tells, so that clocks that differ do not matter.
    return max(date - (answer.date or dt.datetime.now(dt.UTC)), dt.timedelta())


@functools.lru_cache(maxsize=256)  # a busy server says the same second many times
def _http_date(value: str | None) -> dt.datetime | None:
    try:
        date = email.utils.parsedate_to_datetime(value or "")
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=dt.UTC)


def _json_type(answer: Answer) -> bool:
    return "json" in answer.headers.get("content-type", "").lower()


def _json(answer: Answer) -> dict[str, object] | None:
    try:
        parsed = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None
