"""`status` of a SquidexClient: a report of what was observed. It is the same as before where nothing changed, and losing it
loses nothing: the truth about the token is on the target Secret.
"""

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Any

from squidex_operator.api import reasons, resource
from squidex_operator.policy import backoff, checks, credentials, decide, observed, render, stalled

NEXT_TRY = " Next try at "
"""Between what went wrong and when it is tried again, in a message."""

_Condition = reasons.ConditionType
_Reason = reasons.Reason


_WORTH_AN_EVENT = (_Condition.READY, _Condition.REFRESH_FAILING, _Condition.TOKEN_ACCEPTED)
_NO_NEWS = {
    _Reason.PENDING,
    _Reason.NOT_PROBED,
    _Reason.PROBE_OFF,
    _Reason.PROBE_INCONCLUSIVE,
    _Reason.TOKEN_MISSING,
    _Reason.ACCEPTED,
}


_SAID_WITHOUT_ASKING = {_Reason.PROBE_OFF, _Reason.TOKEN_MISSING, _Reason.TOKEN_EXPIRED}
"""Of a token that can be asked about again, as probes are on, or the clock is right, these say nothing."""


@dataclasses.dataclass(frozen=True)
class Refreshed:
    """The last token that was published, and why it was fetched."""

    at: dt.datetime
    cause: reasons.Cause


@dataclasses.dataclass(frozen=True)
class _Finding:
    status: str
    reason: str
    message: str


def build(
    now: dt.datetime,
    o: observed.Observed,
    *,
    stopped: backoff.Problem | None = None,
    refreshed: Refreshed | None = None,
) -> dict[str, Any]:
    """The whole status.

    Args:
        now: aware UTC.
        o: what is known at the end of a reconcile.
        stopped: why nothing is done, where nothing is done.
        refreshed: what this process published, if it did since the last report.
    """
    previous = o.client.status
    spec = o.client.spec
    failure = o.failure
    ready = _ready(now, o, stopped)
    findings = {
        _Condition.READY: ready,
        _Condition.REFRESH_FAILING: _refresh_failing(failure, has_token=checks.target(o) is not None),
        _Condition.STALLED: _stalled(ready, stalled.problem(now, o, stopped)),
        _Condition.TOKEN_ACCEPTED: _token_accepted(now, o, spec, previous),
        _Condition.CREDENTIALS_AVAILABLE: _credentials_available(o),
    }
    status: dict[str, Any] = {
        "observedGeneration": o.client.generation,
        "conditions": [_condition(now, o, kind, finding) for kind, finding in findings.items()],
        "failures": max(failure.count, 0) if failure else 0,
    }
    if failure:
        status["lastFailureTime"] = render.format_time(failure.at)
        status["nextAttemptTime"] = render.format_time(failure.next_attempt)
        if failure.inputs_hash:
            status["failedInputsHash"] = failure.inputs_hash
    status |= _token_facts(o, spec, previous, refreshed)
    return status


def transitions(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What is worth an event: (type, reason, message) for conditions as they change, and each reason once."""
    events: dict[str, tuple[str, str, str]] = {}
    before = {c["type"]: c for c in old.get("conditions") or [] if "type" in c}
    for condition in new["conditions"]:
        kind, was = condition["type"], before.get(condition["type"], {})
        same = (was.get("status"), was.get("reason")) == (condition["status"], condition["reason"])
        if same or kind not in _WORTH_AN_EVENT or condition["reason"] in _NO_NEWS:
            continue
        good = "False" if kind == _Condition.REFRESH_FAILING else "True"
        event = ("Warning" if condition["status"] != good else "Normal", condition["reason"], condition["message"])
        if condition["status"] != good or was.get("status") not in (None, good):
            events.setdefault(condition["reason"], event)
    return list(events.values())


def merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON merge patch (RFC 7386) from `old` to `new`: keys that went are null."""
    gone: dict[str, Any] = {key: None for key in old if key not in new}
    return gone | {key: value for key, value in new.items() if old.get(key) != value}


def _ready(now: dt.datetime, o: observed.Observed, stopped: backoff.Problem | None) -> _Finding:
    seen = checks.target(o)
    problem = o.failure.problem if o.failure else None
    if stopped is not None:
        return _Finding("False", stopped.reason, stopped.message)
    if problem is not None and problem.reason is _Reason.TARGET_NOT_OWNED:
        return _Finding("False", problem.reason, problem.message)
    reason = problem.reason if problem else _Reason.PENDING
    why = _with_next_try(o.failure) if o.failure else ""
    because = f" {why}" if why else ""
    if seen is None or not _is_ours(o, seen) or not seen.token_intact or seen.expires_at is None:
        return _Finding("False", reason, why or "A token is being fetched.")
    until = render.format_time(seen.expires_at)
    if now >= seen.expires_at:
        return _Finding("False", _Reason.TOKEN_EXPIRED, f"The token expired at {until}.{because}")
    if checks.is_refused(o):
        because = because or (f" {_disagreement(o)}" if _keys_disagree(now, o) else "")
        return _Finding("False", _Reason.TOKEN_REFUSED, f"The server refuses the token.{because}")
    if _for_something_else(o, seen):
        return _Finding("False", reason, f"The Secret still holds a token for other settings.{because}")
    return _Finding("True", _Reason.TOKEN_VALID, f"Secret {seen.name!r} holds a token valid until {until}.")


def _for_something_else(o: observed.Observed, seen: observed.TargetSeen) -> bool:
    """The token is for another server, or for another client, than the spec asks for now."""
    if o.client.spec is not None and seen.url != o.client.spec.base_url:
        return True
    return isinstance(o.credentials, credentials.CredentialsSeen) and checks.names_another(
        seen, o.credentials.client_id
    )


def _is_ours(o: observed.Observed, seen: observed.TargetSeen) -> bool:
    """Not what somebody else left behind, which may be taken over in a moment."""
    return o.client.uid in (seen.client_uid, *seen.owner_uids) and decide.is_ours(o, seen)


def _refresh_failing(failure: backoff.Failure | None, *, has_token: bool) -> _Finding:
    if failure is None and not has_token:
        return _Finding("False", _Reason.PENDING, "Nothing has failed.")
    if failure is None:
        return _Finding("False", _Reason.REFRESHED, "The last attempt succeeded.")
    return _Finding("True", failure.problem.reason, _with_next_try(failure))


def _stalled(ready: _Finding, problem: backoff.Problem | None) -> _Finding:
    # A token that can be used is what a pipeline waits for: why the next one cannot be had is said by RefreshFailing.
    if ready.status == "True":
        return _Finding("False", _Reason.TOKEN_VALID, "There is a token that can be used.")
    if problem is None:
        return _Finding("False", _Reason.PENDING, "It is tried again without anybody's help.")
    return _Finding("True", problem.reason, problem.message)


def _with_next_try(failure: backoff.Failure) -> str:
    return f"{failure.problem.message}{NEXT_TRY}{render.format_time(failure.next_attempt)}."


def _token_accepted(
    now: dt.datetime, o: observed.Observed, spec: resource.Spec | None, previous: Mapping[str, Any]
) -> _Finding:
    seen = checks.target(o)
    if seen is None or not _is_ours(o, seen) or not seen.token_intact:
        return _Finding("Unknown", _Reason.TOKEN_MISSING, "There is no token to ask about.")
    if seen.expires_at is not None and now >= seen.expires_at:
        return _Finding("False", _Reason.TOKEN_EXPIRED, f"The token expired at {render.format_time(seen.expires_at)}.")
    if _keys_disagree(now, o) and not checks.is_refused(o):
        return _Finding("Unknown", _Reason.KEYS_DISAGREE, _disagreement(o))
    if spec is not None and spec.probe.mode == "Off":
        return _Finding("Unknown", _Reason.PROBE_OFF, "spec.probe.mode is Off.")
    if o.probed is None or o.probed.data_hash != seen.data_hash:
        was = _previous(o.client, _Condition.TOKEN_ACCEPTED)
        same_token = seen.issued_at and previous.get("issuedAt") == render.format_time(seen.issued_at)
        if was and same_token and was.reason not in _SAID_WITHOUT_ASKING:
            return was
        return _Finding("Unknown", _Reason.NOT_PROBED, "The server was not asked about this token yet.")
    status, reason = {
        observed.Verdict.ACCEPTED: ("True", _Reason.ACCEPTED),
        observed.Verdict.REFUSED: ("False", _Reason.TOKEN_REFUSED),
        observed.Verdict.APP_NOT_FOUND: ("Unknown", _Reason.APP_NOT_FOUND),
        observed.Verdict.INCONCLUSIVE: ("Unknown", _Reason.PROBE_INCONCLUSIVE),
    }[o.probed.verdict]
    return _Finding(status, reason, o.probed.message)


def _keys_disagree(now: dt.datetime, o: observed.Observed) -> bool:
    return o.keys_disagree_until is not None and now < o.keys_disagree_until


def _disagreement(o: observed.Observed) -> str:
    host = o.client.spec.host if o.client.spec is not None else "the server"
    return (
        f"The signing keys of {host} do not fit together: it refused, or publishes no key for, tokens that it had just issued. "
        "Do its replicas have different keys, or is its list of keys cached? Until they agree, any token may be refused at times."
    )


def _credentials_available(o: observed.Observed) -> _Finding:
    if isinstance(o.credentials, backoff.Problem):
        return _Finding("False", o.credentials.reason, o.credentials.message)
    if o.credentials is observed.UNKNOWN:
        was = _previous(o.client, _Condition.CREDENTIALS_AVAILABLE)
        return was or _Finding("Unknown", _Reason.PENDING, "The credentials Secret was not looked at yet.")
    if o.credentials.trimmed:
        return _Finding(
            "True",
            _Reason.WHITESPACE_TRIMMED,
            "White space around the id or the secret is left out: was it made with `echo` instead of `echo -n`?",
        )
    return _Finding("True", _Reason.CREDENTIALS_FOUND, "The Secret holds an id and a secret.")


def _token_facts(
    o: observed.Observed,
    spec: resource.Spec | None,
    previous: Mapping[str, Any],
    refreshed: Refreshed | None,
) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    seen = checks.target(o)
    if refreshed is not None:
        facts["lastRefreshTime"] = render.format_time(refreshed.at)
        facts["lastRefreshReason"] = str(refreshed.cause)
    else:
        facts |= {k: previous[k] for k in ("lastRefreshTime", "lastRefreshReason") if k in previous}
    if seen is None or not _is_ours(o, seen):
        # The name stays, so that a target that was renamed is still found when it can be removed.
        return facts | {key: previous[key] for key in ("target", "binding") if key in previous}
    # A former target that is still there keeps its name in the status until it is gone.
    name = o.former_targets[0].name if o.former_targets else seen.name
    facts |= {"target": {"name": name}, "binding": {"name": name}}
    if not seen.token_intact:
        # What the annotations of a damaged target say may be anything.
        return facts
    if seen.issued_at and seen.expires_at:
        facts["issuedAt"] = render.format_time(seen.issued_at)
        facts["expiresAt"] = render.format_time(seen.expires_at)
        facts.setdefault("lastRefreshTime", facts["issuedAt"])
    if seen.key_id:
        facts["keyID"] = seen.key_id
    if spec is not None and (due := checks.renewal_due(o, spec)):
        facts["nextRefreshTime"] = render.format_time(due)
    return facts


def _condition(now: dt.datetime, o: observed.Observed, kind: _Condition, finding: _Finding) -> dict[str, Any]:
    was = o.client.condition(kind)
    since = was.get("lastTransitionTime") if was.get("status") == finding.status else None
    return {
        "type": str(kind),
        "status": finding.status,
        "reason": str(finding.reason),
        "message": finding.message,
        "lastTransitionTime": since or render.format_time(now),
        "observedGeneration": o.client.generation,
    }


def _previous(client: observed.Client, kind: _Condition) -> _Finding | None:
    was = client.condition(kind)
    return _Finding(was["status"], was["reason"], was.get("message") or "") if was.get("reason") else None
