"""`status`: what is reported of what was observed."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pytest

from squidex_operator.api import reasons
from squidex_operator.policy import backoff, conditions, credentials, decide, observed
from tests.unit.policy import situation

NOW = situation.NOW
Verdict = observed.Verdict
Reason = reasons.Reason
UNKNOWN = observed.UNKNOWN

client, condition, failure, probed, seen, spec, target = (
    situation.client,
    situation.condition,
    situation.failure,
    situation.probed,
    situation.seen,
    situation.spec,
    situation.target,
)
LATER = NOW + dt.timedelta(hours=1)
DISAGREEMENT = (
    "The signing keys of https://cms.example.com do not fit together: it refused, or publishes no key for, tokens that it had "
    "just issued. Do its replicas have different keys, or is its list of keys cached? Until they agree, any token may be "
    "refused at times."
)
DISAGREE = ("Unknown", "KeysDisagree", DISAGREEMENT)
UNTIL = "2026-05-30T12:00:00Z"
TRY = " Next try at 2026-05-01T12:10:00Z."
FAILED = f"It did not work.{TRY}"
MISSING = credentials.missing(spec().credentials_secret_ref)
NOT_OWNED = failure(Reason.TARGET_NOT_OWNED, backoff.Kind.CLUSTER)
GONE = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
OTHER_CLIENT = dataclasses.replace(situation.CREDENTIALS, client_id="shop:second")
ELSEWHERE = client(spec=spec(url="https://b.example"), generation=2)
FOREIGN = target(client_uid="", owner_uids=frozenset())
NAMELESS = target(granted=situation.grant(token=situation.jwt(client_id="", sub="")))


def found(kind: str, o: observed.Observed, now: dt.datetime = NOW, **more: Any) -> tuple[str, str, str]:
    status = conditions.build(now, o, **more)
    one = next(c for c in status["conditions"] if c["type"] == kind)
    return one["status"], one["reason"], one["message"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {}, ("True", "TokenValid", f"Secret 'shop' holds a token valid until {UNTIL}."), id="a good token"
        ),
        pytest.param(
            {"failure": failure()},
            ("True", "TokenValid", f"Secret 'shop' holds a token valid until {UNTIL}."),
            id="a good token whose renewal fails",
        ),
        pytest.param(
            {"probed": probed(Verdict.APP_NOT_FOUND)},
            ("True", "TokenValid", f"Secret 'shop' holds a token valid until {UNTIL}."),
            id="a token that the server does not refuse",
        ),
        pytest.param({"target": None}, ("False", "Pending", "A token is being fetched."), id="no target yet"),
        pytest.param({"target": UNKNOWN}, ("False", "Pending", "A token is being fetched."), id="nothing known yet"),
        pytest.param(
            {"target": target(token_intact=False)}, ("False", "Pending", "A token is being fetched."), id="damage"
        ),
        pytest.param(
            {"target": target(expires_at=None)},
            ("False", "Pending", "A token is being fetched."),
            id="of no known expiry",
        ),
        pytest.param({"target": FOREIGN}, ("False", "Pending", "A token is being fetched."), id="not ours yet"),
        pytest.param({"target": None, "failure": failure()}, ("False", "ServerError", FAILED), id="no target, and why"),
        pytest.param(
            {"target": FOREIGN, "failure": NOT_OWNED},
            ("False", "TargetNotOwned", "It did not work."),
            id="a foreign Secret",
        ),
        pytest.param(
            {"failure": NOT_OWNED},
            ("False", "TargetNotOwned", "It did not work."),
            id="a foreign Secret, says the last",
        ),
        pytest.param(
            {"probed": probed(Verdict.REFUSED)},
            ("False", "TokenRefused", "The server refuses the token."),
            id="refused",
        ),
        pytest.param(
            {"probed": probed(Verdict.REFUSED), "failure": failure()},
            ("False", "TokenRefused", f"The server refuses the token. {FAILED}"),
            id="refused, and no other to be had",
        ),
        pytest.param(
            {"probed": probed(Verdict.REFUSED), "keys_disagree_until": LATER},
            ("False", "TokenRefused", f"The server refuses the token. {DISAGREEMENT}"),
            id="refused, and another would be as well",
        ),
        pytest.param(
            {"client": ELSEWHERE, "target": target()},
            ("False", "Pending", "The Secret still holds a token for other settings."),
            id="a token of another server",
        ),
        pytest.param(
            {"client": ELSEWHERE, "target": target(), "failure": failure()},
            ("False", "ServerError", f"The Secret still holds a token for other settings. {FAILED}"),
            id="a token of another server, and why",
        ),
        pytest.param(
            {"credentials": OTHER_CLIENT},
            ("False", "Pending", "The Secret still holds a token for other settings."),
            id="a token of another client",
        ),
        pytest.param(
            {"target": NAMELESS},
            ("True", "TokenValid", f"Secret 'shop' holds a token valid until {UNTIL}."),
            id="a token that does not say whose it is",
        ),
        pytest.param(
            {"client": client(spec=None)},
            ("True", "TokenValid", f"Secret 'shop' holds a token valid until {UNTIL}."),
            id="a spec that cannot be read says nothing of the token",
        ),
    ],
)
def test_ready(changes: dict[str, Any], expected: tuple[str, str, str]) -> None:
    assert found("Ready", seen(**changes)) == expected


def test_an_expired_token_is_not_ready() -> None:
    assert found("Ready", seen(), GONE) == ("False", "TokenExpired", f"The token expired at {UNTIL}.")
    message = f"The token expired at {UNTIL}. {FAILED}"
    assert found("Ready", seen(failure=failure()), GONE) == ("False", "TokenExpired", message)


def test_where_everything_has_stopped_ready_says_why() -> None:
    problem = decide.invalid_spec("spec.url: bad")
    assert found("Ready", seen(), stopped=problem) == ("False", "InvalidSpec", problem.message)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, ("False", "Refreshed", "The last attempt succeeded."), id="all is well"),
        pytest.param({"target": None}, ("False", "Pending", "Nothing has failed."), id="nothing was tried"),
        pytest.param({"failure": failure()}, ("True", "ServerError", FAILED), id="the last attempt failed"),
    ],
)
def test_refresh_failing(changes: dict[str, Any], expected: tuple[str, str, str]) -> None:
    assert found("RefreshFailing", seen(**changes)) == expected


def reported(status: str, reason: str, issued: str = "2026-04-30T12:00:00Z") -> observed.Client:
    return client(status={"issuedAt": issued, "conditions": [condition("TokenAccepted", status, reason)]})


OFF = spec(probe={"mode": "Off"})
NOT_ASKED = ("Unknown", "NotProbed", "The server was not asked about this token yet.")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"target": None}, ("Unknown", "TokenMissing", "There is no token to ask about."), id="no target"),
        pytest.param(
            {"target": target(token_intact=False), "probed": probed(Verdict.REFUSED)},
            ("Unknown", "TokenMissing", "There is no token to ask about."),
            id="a damaged one",
        ),
        pytest.param(
            {"client": client(spec=OFF)}, ("Unknown", "ProbeOff", "spec.probe.mode is Off."), id="probes are off"
        ),
        pytest.param({"keys_disagree_until": LATER}, DISAGREE, id="keys that do not fit together, and nobody asked"),
        pytest.param(
            {"keys_disagree_until": LATER, "probed": probed(Verdict.ACCEPTED)},
            DISAGREE,
            id="accepted, but the keys differ",
        ),
        pytest.param(
            {"keys_disagree_until": LATER, "client": client(spec=spec(probe={"mode": "Off"}))},
            DISAGREE,
            id="keys that do not fit together, and probes are off",
        ),
        pytest.param(
            {"keys_disagree_until": LATER, "probed": probed(Verdict.REFUSED)},
            ("False", "TokenRefused", "The server said so."),
            id="refused, and the keys differ",
        ),
        pytest.param(
            {"keys_disagree_until": NOW, "probed": probed(Verdict.ACCEPTED)},
            ("True", "Accepted", "The server said so."),
            id="keys that have not differed for a while",
        ),
        pytest.param({}, NOT_ASKED, id="not asked yet"),
        pytest.param({"client": client(spec=None)}, NOT_ASKED, id="not asked yet, and a spec that cannot be read"),
        pytest.param({"probed": probed(Verdict.ACCEPTED)}, ("True", "Accepted", "The server said so."), id="accepted"),
        pytest.param(
            {"probed": probed(Verdict.REFUSED)}, ("False", "TokenRefused", "The server said so."), id="refused"
        ),
        pytest.param(
            {"probed": probed(Verdict.APP_NOT_FOUND)}, ("Unknown", "AppNotFound", "The server said so."), id="no app"
        ),
        pytest.param(
            {"probed": probed(Verdict.INCONCLUSIVE)},
            ("Unknown", "ProbeInconclusive", "The server said so."),
            id="no answer",
        ),
        pytest.param(
            {"probed": probed(Verdict.REFUSED, target(data_hash="x"))}, NOT_ASKED, id="asked about another token"
        ),
        pytest.param(
            {"client": reported("True", "Accepted")}, ("True", "Accepted", "As it was."), id="after a restart"
        ),
        pytest.param(
            {"client": reported("True", "Accepted", "2026-04-01T00:00:00Z")}, NOT_ASKED, id="reported on another token"
        ),
        pytest.param({"client": reported("Unknown", "ProbeOff")}, NOT_ASKED, id="probes were off, and are on again"),
        pytest.param({"client": reported("Unknown", "TokenMissing")}, NOT_ASKED, id="there was no token"),
        pytest.param({"client": reported("False", "TokenExpired")}, NOT_ASKED, id="expired, by a clock that was wrong"),
    ],
)
def test_token_accepted(changes: dict[str, Any], expected: tuple[str, str, str]) -> None:
    assert found("TokenAccepted", seen(**changes)) == expected


FOUND = ("True", "CredentialsFound", "The Secret holds an id and a secret.")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, FOUND, id="found"),
        pytest.param({"credentials": MISSING}, ("False", "CredentialsMissing", MISSING.message), id="missing"),
        pytest.param(
            {"credentials": dataclasses.replace(situation.CREDENTIALS, trimmed=True)},
            (
                "True",
                "WhitespaceTrimmed",
                "White space around the id or the secret is left out: was it made with `echo` instead of `echo -n`?",
            ),
            id="with a newline",
        ),
        pytest.param(
            {"credentials": UNKNOWN, "client": client(status={})},
            ("Unknown", "Pending", "The credentials Secret was not looked at yet."),
            id="not looked at",
        ),
        pytest.param(
            {"credentials": UNKNOWN}, ("True", "CredentialsFound", "As it was."), id="not looked at since a restart"
        ),
    ],
)
def test_credentials_available(changes: dict[str, Any], expected: tuple[str, str, str]) -> None:
    assert found("CredentialsAvailable", seen(**changes)) == expected


def without_conditions(o: observed.Observed, **more: Any) -> dict[str, Any]:
    status = conditions.build(NOW, o, **more)
    del status["conditions"]
    return status


FACTS = {
    "observedGeneration": 1,
    "failures": 0,
    "target": {"name": "shop"},
    "binding": {"name": "shop"},
    "issuedAt": "2026-04-30T12:00:00Z",
    "expiresAt": UNTIL,
    "keyID": "key-1",
    "lastRefreshTime": "2026-04-30T12:00:00Z",
}


def test_the_facts_of_a_token() -> None:
    status = without_conditions(seen())
    due = status.pop("nextRefreshTime")
    assert status == FACTS
    assert "2026-05-18" < due < "2026-05-21"


def test_what_was_published_is_reported_with_its_cause() -> None:
    refreshed = conditions.Refreshed(NOW, reasons.Cause.EXPIRING)
    status = without_conditions(seen(), refreshed=refreshed)
    assert (status["lastRefreshTime"], status["lastRefreshReason"]) == ("2026-05-01T12:00:00Z", "Expiring")
    again = without_conditions(seen(client=client(status=status)))
    assert (again["lastRefreshTime"], again["lastRefreshReason"]) == ("2026-05-01T12:00:00Z", "Expiring")


def test_a_lost_report_is_made_again_from_the_secret() -> None:
    assert without_conditions(seen(client=client(status={})))["lastRefreshTime"] == "2026-04-30T12:00:00Z"


ANOTHERS = {"target": target(client_uid="other", owner_uids=(client().uid, "other")), "other_owner": True}
NAMES = {"target": {"name": "old"}, "binding": {"name": "old"}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"target": None}, {}, id="there is no target"),
        pytest.param({"target": FOREIGN}, {}, id="there is a foreign one"),
        pytest.param(ANOTHERS, {}, id="there is another's, with an owner reference to this one"),
        pytest.param({"target": None, "client": client(status=NAMES)}, NAMES, id="there was one"),
        pytest.param({"former_targets": (target(name="old"),)}, NAMES, id="there is a former one still"),
        pytest.param({}, {"target": {"name": "shop"}, "binding": {"name": "shop"}}, id="there is one"),
        pytest.param(
            {"target": target(client_uid="")}, {"target": {"name": "shop"}, "binding": {"name": "shop"}}, id="by owner"
        ),
    ],
)
def test_the_targets_name(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    status = without_conditions(seen(**changes))
    assert {key: status[key] for key in ("target", "binding") if key in status} == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"target": None},
        {"target": FOREIGN},
        ANOTHERS,
        {"target": target(token_intact=False)},
        {"target": target(issued_at=None, key_id="")},
    ],
    ids=["no target", "a foreign one", "another's", "a damaged one", "one of unknown age"],
)
def test_nothing_is_reported_of_a_token_that_is_not_certain(changes: dict[str, Any]) -> None:
    status = without_conditions(seen(**changes))
    assert not {"issuedAt", "expiresAt", "keyID", "nextRefreshTime"} & status.keys()


def test_an_unreadable_spec_has_no_next_renewal() -> None:
    status = without_conditions(seen(client=client(spec=None)))
    assert "nextRefreshTime" not in status
    assert status["expiresAt"] == UNTIL


def test_a_failure_is_reported_with_its_times() -> None:
    status = without_conditions(seen(failure=failure(inputs_hash="abc")))
    assert status["failures"] == 3
    assert status["lastFailureTime"] == "2026-05-01T11:59:00Z"
    assert status["nextAttemptTime"] == "2026-05-01T12:10:00Z"
    assert status["failedInputsHash"] == "abc"
    assert "failedInputsHash" not in without_conditions(seen(failure=failure(inputs_hash="")))


def test_a_count_below_nothing_is_not_passed_on() -> None:
    # It can come from a status that somebody wrote into; the CRD would refuse it for ever.
    assert without_conditions(seen(failure=failure(count=-7)))["failures"] == 0


# Stability: a report is written only when something has changed.


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"target": None},
        {"target": FOREIGN, "failure": NOT_OWNED},
        {"failure": failure()},
        {"probed": probed(Verdict.REFUSED)},
        {"credentials": MISSING},
        {"former_targets": (target(name="old"),)},
    ],
    ids=["well", "no target", "foreign", "failing", "refused", "no credentials", "renamed"],
)
def test_the_same_observation_later_gives_the_same_status(changes: dict[str, Any]) -> None:
    first = conditions.build(NOW, seen(**changes))
    who = dataclasses.replace(changes.get("client", client()), status=first)
    later = seen(**{**changes, "client": who})
    second = conditions.build(NOW + dt.timedelta(hours=1), later)
    assert conditions.merge_patch(first, second) == {}
    assert conditions.transitions(first, second) == []


def test_a_condition_keeps_the_time_of_its_last_change_and_takes_the_new_generation() -> None:
    since = "2026-01-01T00:00:00Z"
    old = [
        condition("Ready", "True", "Other", lastTransitionTime=since),
        condition("RefreshFailing", "True", "Timeout"),
    ]
    status = conditions.build(NOW, seen(client=client(generation=5, status={"conditions": old})))
    ready, failing, *_ = status["conditions"]
    assert (ready["lastTransitionTime"], ready["reason"], ready["observedGeneration"]) == (since, "TokenValid", 5)
    assert failing["lastTransitionTime"] == "2026-05-01T12:00:00Z"


def test_every_condition_is_there_from_the_first_report_on() -> None:
    status = conditions.build(NOW, seen(client=client(status={}), target=UNKNOWN, credentials=UNKNOWN))
    assert [c["type"] for c in status["conditions"]] == [str(kind) for kind in reasons.ConditionType]
    for one in status["conditions"]:
        assert one["reason"]
        assert one["message"].endswith((".", "?"))


def test_an_expired_token_is_not_accepted_any_more() -> None:
    old = [condition("TokenAccepted", "True", "Accepted")]
    status = conditions.build(NOW + dt.timedelta(days=400), seen(client=client(status={"conditions": old})))
    found = next(c for c in status["conditions"] if c["type"] == "TokenAccepted")
    assert (found["status"], found["reason"]) == ("False", "TokenExpired")


# Events.


def status_of(*found_conditions: dict[str, Any]) -> dict[str, Any]:
    return {"conditions": list(found_conditions)}


READY = condition("Ready", "True", "TokenValid", "Valid.")
NOT_READY = condition("Ready", "False", "ServerError", "Trouble.")
FAILING = condition("RefreshFailing", "True", "ServerError", "Trouble.")
TIMED_OUT = condition("RefreshFailing", "True", "Timeout", "Slow.")
WORKING = condition("RefreshFailing", "False", "Refreshed", "Works.")
PENDING = condition("Ready", "False", "Pending", "Wait.")


@pytest.mark.parametrize(
    ("old", "new", "events"),
    [
        pytest.param(status_of(), status_of(READY, WORKING), [], id="good from the start is no event"),
        pytest.param({}, status_of(PENDING), [], id="waiting for the first token is none either"),
        pytest.param(status_of(READY), status_of(PENDING), [], id="nor is waiting for another"),
        pytest.param(status_of(READY), status_of(READY), [], id="nothing changed"),
        pytest.param(
            status_of(), status_of(NOT_READY), [("Warning", "ServerError", "Trouble.")], id="bad from the start"
        ),
        pytest.param(
            status_of(READY, WORKING),
            status_of(NOT_READY, FAILING),
            [("Warning", "ServerError", "Trouble.")],
            id="the same said twice is said once",
        ),
        pytest.param(
            status_of(READY, WORKING),
            status_of(READY, FAILING),
            [("Warning", "ServerError", "Trouble.")],
            id="renewal fails",
        ),
        pytest.param(
            status_of(FAILING), status_of(TIMED_OUT), [("Warning", "Timeout", "Slow.")], id="it fails in another way"
        ),
        pytest.param(
            status_of(NOT_READY, FAILING),
            status_of(READY, WORKING),
            [("Normal", "TokenValid", "Valid."), ("Normal", "Refreshed", "Works.")],
            id="good again",
        ),
        pytest.param(status_of(PENDING), status_of(READY), [("Normal", "TokenValid", "Valid.")], id="ready at last"),
        pytest.param(
            status_of(condition("TokenAccepted", "True", "Accepted")),
            status_of(condition("TokenAccepted", "Unknown", "AppNotFound", "Gone.")),
            [("Warning", "AppNotFound", "Gone.")],
            id="the app is gone, and pods get 404",
        ),
        pytest.param(
            status_of(condition("TokenAccepted", "True", "Accepted")),
            status_of(condition("TokenAccepted", "Unknown", "ProbeInconclusive", "Slow.")),
            [],
            id="a probe without an answer is no event",
        ),
        pytest.param(
            status_of(READY, condition("TokenAccepted", "True", "Accepted")),
            status_of(
                condition("Ready", "False", "TokenRefused", "Refused. Next try at noon."),
                condition("TokenAccepted", "False", "TokenRefused", "Refused."),
            ),
            [("Warning", "TokenRefused", "Refused. Next try at noon.")],
            id="one reason, said twice in different words, is one event",
        ),
        pytest.param(
            status_of(condition("CredentialsAvailable", "True", "CredentialsFound")),
            status_of(condition("CredentialsAvailable", "False", "CredentialsMissing")),
            [],
            id="other conditions have no events",
        ),
        pytest.param({"conditions": [{"status": "True"}]}, status_of(READY), [], id="a condition without a type"),
    ],
)
def test_events_are_for_transitions(
    old: dict[str, Any], new: dict[str, Any], events: list[tuple[str, str, str]]
) -> None:
    assert conditions.transitions(old, new) == events


@pytest.mark.parametrize(
    ("old", "new", "patch"),
    [
        ({}, {"a": 1}, {"a": 1}),
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1}, {"a": 2}, {"a": 2}),
        ({"a": 1, "b": 2}, {"a": 1}, {"b": None}),
        ({"a": [1, 2]}, {"a": [2]}, {"a": [2]}),
        ({"a": 0}, {"a": 0}, {}),
    ],
    ids=["new", "same", "changed", "gone", "a list is replaced", "nothing is something"],
)
def test_a_patch_says_what_changed(old: dict[str, Any], new: dict[str, Any], patch: dict[str, Any]) -> None:
    assert conditions.merge_patch(old, new) == patch
